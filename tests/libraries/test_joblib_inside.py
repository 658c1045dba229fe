"""What `interp_lab.libraries.joblib_inside` assumes of joblib, one test an assumption."""

import inspect
from collections.abc import Collection
from types import SimpleNamespace

import pytest
from joblib.externals.loky import process_executor

from interp_lab.libraries.joblib_inside import let_workers_end

MANAGER = process_executor._ExecutorManagerThread


def test_what_ends_the_workers_takes_the_cause_and_knows_the_processes() -> None:
    assert len(inspect.signature(MANAGER.terminate_broken).parameters) == 2
    assert "self.processes = " in inspect.getsource(MANAGER.__init__)
    assert "self.executor_flags = " in inspect.getsource(MANAGER.__init__)
    assert not process_executor._ExecutorFlags(None).kill_workers


@pytest.mark.parametrize(("asked_to_end", "looks"), [(False, 3), (True, 0)])
def test_the_others_end_first_unless_all_are_to_end(
    monkeypatch: pytest.MonkeyPatch, asked_to_end: bool, looks: int
) -> None:
    ended: list[BaseException] = []
    monkeypatch.setattr(MANAGER, "terminate_broken", lambda self, cause: ended.append(cause))
    monkeypatch.setattr("interp_lab.libraries.joblib_inside.time.sleep", lambda seconds: None)
    seen: list[list[int]] = []

    def at_work(processes: Collection[int]) -> bool:
        assert not ended
        seen.append(list(processes))
        return len(seen) < 3

    let_workers_end(at_work)
    let_workers_end(at_work)  # of the next sweep of this process
    lives, died = SimpleNamespace(is_alive=lambda: True), SimpleNamespace(is_alive=lambda: False)
    executor = SimpleNamespace(
        processes={7: lives, 8: died}, executor_flags=SimpleNamespace(kill_workers=asked_to_end)
    )
    cause = RuntimeError("a worker died")
    MANAGER.terminate_broken(executor, cause)
    assert seen == [[7]] * looks and ended == [cause]
