"""The table of bad inputs and the exact line that each gives: a new one is a line here.

`{tmp}` is the folder of the test; a line that quotes a library ends in ` ...` where it does. To add
one, write it with `says=""`: the test that fails shows what is said today.
"""

from typing import Any

from hostile_ways import ABSENT, FOLDER, Case

from interp_lab.config.nodes import conf_dir


def typed(*given: str, says: str) -> Case:
    """Return a case of a whole command."""
    return Case("typed", given, says)


def own(content: Any, *given: str, says: str) -> Case:
    """Return a case of a command with a YAML file of the user's own."""
    return Case("own file", (content, *given), says)


def of(way: str, given: Any, says: str, **options: Any) -> Case:
    """Return a case of another way, see `hostile_ways.WAYS`."""
    return Case(way, (given,), says, options)


MODELS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
NOWHERE = (
    "no such configuration; your own are looked for in ./conf, ./studies and the folder of "
    "--config-dir"
)
CASES = [
    # The command line: what is no override, no flag, no option.
    typed("model", says="model: not of the form key=value; give a key, an equals sign and a value"),
    typed("=3", says="=3: no key before the equals sign; give key=value"),
    typed("+=", says="+=: no key before the equals sign; give key=value"),
    typed("model.=3", says="model.=3: this value cannot be read as it stands; put it into a YAML"),
    typed("a b=3", says="a b=3: not of the form key=value (LexerNoViableAltException: a b=3)"),
    typed("--nope", says="unrecognized arguments: --nope; --help lists the flags"),
    typed(
        "--cfg=x",
        says=(
            "argument --cfg/-c: invalid choice: 'x' (choose from 'job', 'hydra', 'all'); "
            "--help lists the flags"
        ),
    ),
    typed(
        "--config-dir={tmp}/nowhere", says="Additional config directory '{tmp}/nowhere' not found"
    ),
    typed(
        "--config-name=nowhere",
        says=f"nowhere: {NOWHERE}",
    ),
    typed(
        "model=null",
        says=f"model=null: give one of the options: {MODELS[0]}, ...",
    ),
    typed(
        "model=3",
        says=f"model=3: give one of the options: {MODELS[0]}, ...",
    ),
    typed(
        "model=true",
        says=f"model=true: give one of the options: {MODELS[0]}, ...",
    ),
    typed(
        "model=",
        says=f"model=: give one of the options: {MODELS[0]}, ...",
    ),
    typed(
        "model=[tiny_clip,tiny_llava]",
        says=f"model=[tiny_clip,tiny_llava]: give one of the options: {MODELS[0]}, ...",
    ),
    typed(
        "model=tiny_clp",
        says=(
            "model=tiny_clp: no such option. Did you mean 'tiny_clip' or 'tiny_llava' or "
            f"'tiny_qwen_vl'? There are: {', '.join(MODELS)}"
        ),
    ),
    typed(
        "model=tiny_clip,tiny_llava",
        says=(
            "model=tiny_clip,tiny_llava: several values are for --multirun; as one text it "
            "is typed 'model=\"tiny_clip,tiny_llava\"'"
        ),
    ),
    typed(
        "modle=tiny_clip",
        says="modle: no such key. Did you mean 'mode' or 'model' or 'model.name'?",
    ),
    typed("experiment=3", says="experiment=3: give one of the options: ..."),
    typed(
        "hydra/launcher=null",
        says="hydra/launcher=null: give one of the options: ray_cluster, slurm, slurm_local",
    ),
    typed(
        "hydra/launcher=nowhere",
        says=(
            "hydra/launcher=nowhere: no such option. There are: basic, joblib, ray_cluster,"
            " slurm, slurm_local"
        ),
    ),
    typed(
        "task=",
        says=(
            "task=: give one of the options: avigate, clip_similarity, scienceqa, semdim, "
            "trajectory"
        ),
    ),
    typed(
        "~task_name",
        says="~task_name: this key cannot be taken away; give task_name=... another value",
    ),
    typed(
        "~output", says="~output: this key cannot be taken away; give output.KEY=... another value"
    ),
    typed(
        "~output.root",
        says=("~output.root: this key cannot be taken away; give output.root=... another value"),
    ),
    typed("~model", says="~model: this key cannot be taken away; give model=... another value"),
    typed(
        "~tsk_name",
        says="~tsk_name: no such key. Did you mean 'task_name' or 'dataset.name' or 'task'?",
    ),
    typed("~hydra", says="~hydra: this key cannot be taken away; give hydra.KEY=... another value"),
    typed(
        "+foo=1",
        says=(
            "foo: no such key. Known here: task_name, mode, device, seed, batch_size, "
            "resume, retry_failed, keep_models, results, max_failed_share, model, dataset, "
            "analysis, numbers, visualization, select, allow_targets, importers, capture, "
            "output, shard, doctor"
        ),
    ),
    typed(
        "select.lyer=3",
        says=(
            "select.lyer: no such key. Did you mean 'select.layer' or 'select.head' or 'select'?"
        ),
    ),
    typed(
        "+output.rooot=x",
        says=(
            "output.rooot: no such key. Did you mean 'root'? Known here: root, dir, "
            "part_size, part_seconds, exports"
        ),
    ),
    typed(
        "--multirun",
        "hydra/launcher=basic",
        "seed=1,,2",
        says=(
            "seed=1,,2: this value cannot be read as it stands; as one text it is typed "
            "'seed=\"1,,2\"'"
        ),
    ),
    # Values that need quotes, and numbers that should be texts; shown as they were typed.
    typed(
        "dataset=images",
        "dataset.path=epoch=3-step=1000.ckpt",
        says=(
            "dataset.path=epoch=3-step=1000.ckpt: this value cannot be read as it stands; "
            "as one text it is typed 'dataset.path=\"epoch=3-step=1000.ckpt\"'"
        ),
    ),
    typed(
        "dataset=images",
        "dataset.path=a,b.png",
        says=(
            "dataset.path=a,b.png: several values are for --multirun; as one text it is "
            "typed 'dataset.path=\"a,b.png\"'"
        ),
    ),
    typed(
        "dataset=images",
        "dataset.path=a#b.png",
        says=(
            "dataset.path=a#b.png: this value cannot be read as it stands; as one text it "
            "is typed 'dataset.path=\"a#b.png\"'"
        ),
    ),
    typed(
        "dataset=images",
        "dataset.path=a[1].png",
        says=(
            "dataset.path=a[1].png: this value cannot be read as it stands; as one text it "
            "is typed 'dataset.path=\"a[1].png\"'"
        ),
    ),
    typed(
        "dataset=images",
        "dataset.path=a(1).png",
        says=(
            "dataset.path=a(1).png: this value cannot be read as it stands; as one text it "
            "is typed 'dataset.path=\"a(1).png\"'"
        ),
    ),
    typed(
        "dataset=images",
        "dataset.path=a{b}.png",
        says=(
            "dataset.path=a{b}.png: this value cannot be read as it stands; as one text it "
            "is typed 'dataset.path=\"a{b}.png\"'"
        ),
    ),
    typed(
        "dataset=images",
        "dataset.path=a&b;c.png",
        says=(
            "dataset.path=a&b;c.png: this value cannot be read as it stands; as one text it"
            " is typed 'dataset.path=\"a&b;c.png\"'"
        ),
    ),
    typed(
        "dataset=images",
        "dataset.path=~/a.png",
        says=(
            "dataset.path=~/a.png: this value cannot be read as it stands; as one text it "
            "is typed 'dataset.path=\"~/a.png\"'"
        ),
    ),
    typed(
        "dataset=images",
        "dataset.path=[a",
        says=(
            "dataset.path=[a: this value cannot be read as it stands; as one text it is "
            "typed 'dataset.path=\"[a\"'"
        ),
    ),
    typed(
        "dataset=images",
        "dataset.path='a'b.png",
        says=(
            "dataset.path='a'b.png: this value cannot be read as it stands; as one text it "
            "is typed 'dataset.path=\"'\"'\"'a'\"'\"'b.png\"'"
        ),
    ),
    typed(
        "dataset=images",
        'dataset.path=a"b.png',
        says=(
            'dataset.path=a"b.png: this value cannot be read as it stands; as one text it '
            'is typed \'dataset.path="a\\"b.png"\''
        ),
    ),
    typed(
        "dataset=images",
        "dataset.path=고양이,개.jpg",
        says=(
            "dataset.path=고양이,개.jpg: several values are for --multirun; as one text it is "
            "typed 'dataset.path=\"고양이,개.jpg\"'"
        ),
    ),
    typed(
        "dataset=images",
        "dataset.path=고양이 (1).jpg",
        says="dataset.path=고양이 (1).jpg: no such file or folder ({tmp}/고양이 (1).jpg).",
    ),
    typed(
        "dataset=images",
        "dataset.path=1e3",
        says="dataset.path=1e3: should be a text: put it into quotes.",
    ),
    typed(
        "dataset=images", "dataset.path=null", says="dataset.path=null: should be a valid string."
    ),
    typed("dataset=images", "dataset.path=", says="dataset.path=: is empty; give a path"),
    typed(
        "dataset=images",
        "dataset.path='a=b.png'",
        says="dataset.path='a=b.png': no such file or folder ({tmp}/a=b.png).",
    ),
    # The schema of the root: types, bounds, texts that are empty, sections that are none.
    typed("seed=-1", says="seed=-1: give a whole number from 0 to 4294967295"),
    typed(
        "seed=12345678901234567890",
        says="seed=12345678901234567890: give a whole number from 0 to 4294967295",
    ),
    typed("seed=1.5", says="seed=1.5: give a whole number from 0 to 4294967295"),
    typed("seed=true", says="seed=true: give a whole number from 0 to 4294967295"),
    typed("seed=null", says="seed=null: cannot be null; leave the key out, or give a value"),
    typed("batch_size=0", says="batch_size=0: give a whole number from 1 to 2147483647"),
    typed(
        "batch_size=99999999999999999999",
        says="batch_size=99999999999999999999: give a whole number from 1 to 2147483647",
    ),
    typed("max_failed_share=nan", says="max_failed_share=nan: give a number from 0 to 1"),
    typed("max_failed_share=1.5", says="max_failed_share=1.5: give a number from 0 to 1"),
    typed("keep_models=-1", says="keep_models=-1: give a whole number from 0 to 2147483647"),
    typed(
        "output.part_size=0", says="output.part_size=0: give a whole number from 1 to 2147483647"
    ),
    typed("output.part_seconds=nan", says="output.part_seconds=nan: give a number from 0 to 86400"),
    typed("output.part_seconds=-1", says="output.part_seconds=-1: give a number from 0 to 86400"),
    typed("output.part_seconds=inf", says="output.part_seconds=inf: give a number from 0 to 86400"),
    typed("output.root=''", says="output.root='': is empty; leave the key out, or give a value"),
    typed(
        "++output.dir=' '", says="++output.dir=' ': is empty; leave the key out, or give a value"
    ),
    typed("task_name=''", says="task_name='': is empty; leave the key out, or give a value"),
    typed("results=''", says="results='': is empty; leave the key out, or give a value"),
    typed("resume=2", says="resume=2: give true or false"),
    typed("resume=maybe", says="resume: Value 'maybe' is not a valid bool (type str)"),
    typed("output.exports=-1", says="output.exports=-1: give true or false"),
    typed(
        "mode=rnder",
        says=(
            "mode: Invalid value 'rnder', expected one of [run, plan, merge, compute, "
            "render, summary, doctor, models]"
        ),
    ),
    typed(
        "capture.method=agr",
        says="capture.method=agr: give one of auto, eager. Did you mean 'eager'?",
    ),
    typed("capture.verify=''", says="capture.verify='': give one of first, all, off."),
    typed("capture=null", says="capture=null: cannot be null; leave the key out, or give a value"),
    typed("output=3", says="output: give its keys with values, such as output.KEY=..."),
    typed("select=3", says="select: Cannot assign int to Dict[str, Any]"),
    typed("shard.index=0", says="shard.index is given without shard.count: give both or neither"),
    typed("shard.axis=''", says="shard.axis='': is empty; leave the key out, or give a value"),
    typed("shard.axis=nowhere", says="shard.axis=nowhere: no such key."),
    typed(
        "shard.axis=model",
        says=(
            "shard.axis=model: jobs that differ in it do not measure the same numbers, so "
            "they cannot share the samples; use a key such as device"
        ),
    ),
    typed("device=3.5", says="device=3.5: give one device, such as cpu, cuda:1 or 1"),
    typed("device=[0,1]", says="device=[0,1]: give one device, such as cpu, cuda:1 or 1"),
    typed("device=''", says="device='': give one device, such as cpu, cuda:1 or 1"),
    typed(
        "numbers=null",
        says=(
            "numbers=null: give one of the options: avigate, clip_similarity, scienceqa, "
            "semdim, trajectory"
        ),
    ),
    typed(
        "shard.index=2",
        "shard.count=2",
        says="shard.index=2: give 0 to shard.count - 1, which is 1",
    ),
    typed(
        "shard.index=-1",
        "shard.count=2",
        says="shard.index=-1: give a whole number from 0 to 2147483647",
    ),
    typed(
        "mode=merge",
        "results={tmp}/x.h5",
        says="results: mode=merge takes the command of the run instead, with its keys",
    ),
    # Options of the nodes: the class's signature is their schema.
    of(
        "setting",
        "clip_similarity dataset.max_samples=true",
        says="dataset.max_samples=true: should be a number, not true or false",
    ),
    of(
        "setting",
        "clip_similarity dataset.max_samples=2.5",
        says=(
            "dataset.max_samples=2.5: should be a valid integer, got a number with a "
            "fractional part."
        ),
    ),
    of(
        "setting",
        "clip_similarity dataset.max_samples=0",
        says="dataset.max_samples=0: give -1 (all) or at least 1",
    ),
    of(
        "setting",
        "clip_similarity dataset.max_samples=many",
        says=(
            "dataset.max_samples=many: should be a valid integer, unable to parse string as"
            " an integer."
        ),
    ),
    of(
        "setting",
        "clip_similarity dataset.max_sample=3",
        says=(
            "dataset.max_sample: ImageFiles takes no such option. Did you mean "
            "'max_samples'? Known: path, max_samples"
        ),
    ),
    of(
        "setting",
        "clip_similarity analysis.metric=cosin",
        says=("analysis.metric=cosin: should be 'cosine' or 'dot_product'. Did you mean 'cosine'?"),
    ),
    of(
        "setting",
        "clip_similarity analysis.layer=null",
        says="analysis.layer=null: should be a valid integer.",
    ),
    of(
        "setting",
        "clip_similarity analysis.layer=nan",
        says="analysis.layer=nan: should be a finite number.",
    ),
    of(
        "setting",
        "clip_similarity analysis._target_=''",
        says="analysis._target_='': give a dotted path",
    ),
    of(
        "setting",
        "clip_similarity analysis._target_=os",
        says="analysis._target_=os: give a dotted path",
    ),
    of(
        "setting",
        "clip_similarity analysis.layers=[1]",
        says=(
            "analysis.layers: ClipSimilarity takes no such option. Did you mean 'layer'? "
            "Known: metric, layer, keep_picture"
        ),
    ),
    of(
        "setting",
        "clip_similarity model.name=''",
        says="model.name='': give a text that is not empty",
    ),
    of(
        "setting",
        "clip_similarity model.quantization={method:bitsandbytes,bits:5}",
        says="model.quantization.bits=5: should be 4 or 8.",
    ),
    of(
        "setting",
        "clip_similarity model.quantization=int8",
        says="model.quantization=int8: should be a table of keys and values, such as {key: value}.",
    ),
    of(
        "setting",
        "clip_similarity model.checkpoint=3",
        says="model.checkpoint=3: should be a text: put it into quotes.",
    ),
    of(
        "setting",
        "clip_similarity visualization.dpi=nan",
        says="visualization.dpi=nan: should be a finite number.",
    ),
    of(
        "setting",
        "clip_similarity visualization.dpi=0",
        says="visualization.dpi=0: give a whole number from 10 to 4800",
    ),
    of(
        "setting",
        "clip_similarity visualization.figsize=[3]",
        says="visualization.figsize=[3]: has too few values (1).",
    ),
    of(
        "setting",
        "clip_similarity visualization.figsize=[nan,3]",
        says="visualization.figsize=[nan,3]: should be a finite number.",
    ),
    of(
        "setting",
        "clip_similarity visualization.cmap=virids",
        says=(
            "visualization.cmap=virids: matplotlib has no such colormap. Did you mean 'viridis'?"
        ),
    ),
    of(
        "setting",
        "clip_similarity visualization.format=exe",
        says=(
            "visualization.format=exe: give one of avif, eps, gif, jpeg, jpg, pdf, png, ps,"
            " svg, svgz, tif, tiff, webp."
        ),
    ),
    of(
        "setting",
        "clip_similarity visualization.workers=-1",
        says="visualization.workers=-1: give a whole number from 0 to 1024",
    ),
    of(
        "setting",
        "clip_similarity visualization.limits=[1,0]",
        says="visualization.limits=[1.0, 0.0]: the first must be smaller than the second",
    ),
    of(
        "setting",
        "clip_similarity visualization.figures=3",
        says="visualization.figures=3: give nodes by name, or null for no figure",
    ),
    of(
        "setting",
        "clip_similarity visualization.figures.combined=3",
        says=(
            "visualization.figures.combined: no such figure, or a new one without _target_ "
            "(the dotted path of its draw function)."
        ),
    ),
    of(
        "setting",
        "clip_similarity visualization.figures.combined.file=../../x",
        says=(
            "visualization.figures.combined.file=../../x: give a name without suffix, as "
            "individual/map"
        ),
    ),
    of(
        "setting",
        "clip_similarity visualization.figures.combined.per=week",
        says=(
            "visualization.figures.combined.per=week: give sample, layer or run. A figure "
            "of several samples has per: group, with by: [...]"
        ),
    ),
    of(
        "setting",
        "clip_similarity visualization.figures.combined.enabled=3",
        says="visualization.figures.combined.enabled=3: give true or false",
    ),
    of(
        "setting",
        "clip_similarity visualization.figures.combined.min_samples=nan",
        says=("visualization.figures.combined.min_samples=nan: give a whole number of at least 1"),
    ),
    of(
        "setting",
        "clip_similarity visualization.figures.combind.file=x",
        says=(
            "visualization.figures.combind: no such figure, or a new one without _target_ "
            "(the dotted path of its draw function). Did you mean 'combined'?"
        ),
    ),
    of(
        "setting",
        "clip_similarity visualization.needs=[nowhere]",
        says=(
            "visualization: is made of nowhere, which ClipSimilarity does not measure; "
            "choose the visualization=... of this study, or leave it out"
        ),
    ),
    of(
        "setting",
        "trajectory dataset.sample_idx=[0,0]",
        says="dataset.sample_idx=[0,0]: names 0 twice",
    ),
    of(
        "setting",
        "trajectory dataset.sample_idx=[]",
        says="dataset.sample_idx is empty; give null for all records",
    ),
    of(
        "setting",
        "trajectory dataset.sample_idx=99",
        says="dataset.sample_idx=99: there are 12 records, 0 to 11",
    ),
    of(
        "setting",
        "trajectory dataset.sample_idx=[true]",
        says="dataset.sample_idx=[true]: should be a number, not true or false",
    ),
    of("setting", "trajectory dataset.ids=[a,a]", says="dataset.ids=[a,a]: names 'a' twice"),
    of(
        "setting",
        "trajectory analysis.layers=[]",
        says="analysis.layers, analysis.heads: an empty list shows nothing",
    ),
    of(
        "setting", "trajectory analysis.point_image=99", says="analysis.point_image=99: from 0 to 7"
    ),
    of("setting", "semdim analysis.layers=[1,1]", says="analysis.layers=[1,1]: names 1 twice"),
    of(
        "setting",
        "semdim analysis.heads=[-1]",
        says="analysis.heads=[-1]: give numbers from 0 on, or null for all",
    ),
    of(
        "setting",
        "semdim analysis.layer_type=cross",
        says=(
            "analysis.layer_type=cross: cross attention exists in encoder-decoder models only "
            "(such as model=flan_t5_base); QwenOmni is a decoder, whose text attends to the word "
            "by self attention: analysis.layer_type=self"
        ),
    ),
    of(
        "setting",
        "semdim dataset.language=xx",
        says="dataset.language=xx: unknown. Known: en, fr, ko, ja",
    ),
    of(
        "setting",
        "semdim dataset.dimensions=[]",
        says="dataset.dimensions: the list is empty; null means all",
    ),
    of(
        "setting",
        "semdim dataset.dimensions=[big-small,big-small]",
        says="dataset.dimensions=[big-small,big-small]: names 'big-small' twice",
    ),
    of("setting", "semdim numbers.bootstrap=-1", says="numbers.bootstrap=-1: give at least 100"),
    of(
        "setting",
        "semdim numbers.normalize=max",
        says="numbers.normalize=max: should be 'sum' or 'mean'. Did you mean 'mean'?",
    ),
    of(
        "setting",
        "scienceqa analysis.knockout_heads=0",
        says="analysis.knockout_heads=0: from 1 on",
    ),
    of(
        "setting",
        "scienceqa analysis.knockout=[[0]]",
        says="analysis.knockout=[[0]]: should be 'winners' or 'random'.",
    ),
    of(
        "setting",
        "scienceqa analysis.definition=max",
        says=(
            "analysis.definition=max: should be 'max_text_to_image', "
            "'last_token_image_mass', 'text_to_image_mean' or 'image_to_text_mean'."
        ),
    ),
    of(
        "setting",
        "scienceqa dataset.ids=[nowhere]",
        says="dataset.ids: no record 'nowhere' in the question file.",
    ),
    of(
        "setting",
        "scienceqa numbers.top_k=0",
        says="numbers: top_k from 1 on, bootstrap from 100 on",
    ),
    of(
        "setting",
        "scienceqa numbers.near_tie=nan",
        says="numbers.near_tie=nan: should be a finite number.",
    ),
    of(
        "setting",
        "scienceqa analysis.top_k=3",
        says=(
            "analysis.top_k: is an option of what is made of the measured samples: give "
            "numbers.top_k, which needs no new measurement"
        ),
    ),
    of(
        "setting",
        "avigate analysis.variants={audio_off:x}",
        says=(
            "analysis.variants.audio_off='x': should be a valid number, unable to parse string as "
            "a number."
        ),
    ),
    of(
        "setting",
        "avigate analysis.variants={plain:0.0}",
        says="analysis.variants.plain: give a plain name, such as audio_off",
    ),
    of(
        "setting",
        "avigate analysis.variants={audio_off:nan}",
        says="analysis.variants.audio_off=nan: should be a finite number.",
    ),
    of(
        "setting",
        "avigate numbers.near_zero=-1",
        says="numbers: near_zero from 0 on, bootstrap from 100 on",
    ),
    of(
        "setting",
        "avigate dataset.clip_seconds=nan",
        says="dataset.clip_seconds=nan: should be a finite number.",
    ),
    of(
        "setting",
        "avigate dataset.clip_seconds=0",
        says="dataset.max_clips, max_words and clip_seconds: should be above 0",
    ),
    of(
        "setting",
        "avigate dataset.max_clips=0",
        says="dataset.max_clips, max_words and clip_seconds: should be above 0",
    ),
    of(
        "setting",
        "avigate dataset.video_widths=[16]",
        says="dataset.video_features and dataset.video_widths: one width a folder",
    ),
    of("setting", "avigate dataset.ids=[]", says="dataset.ids: is empty"),
    # Interventions.
    of(
        "setting",
        "clip_similarity capture.interventions=[1]",
        says="capture.interventions[0]=1: give a mapping such as {kind: block, ...}",
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[null]",
        says="capture.interventions[0]=None: give a mapping such as {kind: block, ...}",
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{}]",
        says=(
            "capture.interventions[0].kind=None: give one of block, scale, zero_heads, "
            "set_gate, clamp_gate."
        ),
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:blok}]",
        says=(
            "capture.interventions[0].kind=blok: give one of block, scale, zero_heads, "
            "set_gate, clamp_gate. Did you mean 'block'?"
        ),
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:block,lyers:[1]}]",
        says=(
            "capture.interventions[0].lyers: block takes no such option. Did you mean "
            "'layers' or 'queries'?"
        ),
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:block,layers:[-1]}]",
        says=(
            "capture.interventions[0]: BlockAttention.layers: indices must be 0 or more and"
            " strictly increasing"
        ),
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:block,layers:[a]}]",
        says=(
            "capture.interventions[0].layers=['a']: should be a valid integer, unable to "
            "parse string as an integer."
        ),
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:block,keys:[1]}]",
        says="capture.interventions[0].keys=[1]: give a mapping such as {role: user}",
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:block,keys:{role:3}}]",
        says="capture.interventions[0].keys.role=3: give a word or a list of words",
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:block,keys:{rol:user}}]",
        says=(
            "capture.interventions[0].keys.rol: select by role, modality, image, label. Did"
            " you mean 'role'?"
        ),
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:block,keys:{image:x}}]",
        says="capture.interventions[0].keys.image='x': give a number from 0 on",
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:scale,factor:0}]",
        says=(
            "capture.interventions[0]: ScaleAttention.factor is 0.0; use a number above 0, "
            "or BlockAttention"
        ),
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:zero_heads}]",
        says="capture.interventions[0].heads is not given: zero_heads needs it",
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:zero_heads,heads:[1]}]",
        says=(
            "capture.interventions[0].heads=[1]: should be a table of keys and values, such as "
            "{key: value}."
        ),
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:set_gate,hookpoints:[a],value:nan}]",
        says="capture.interventions[0].value=nan: should be a finite number.",
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:set_gate,hookpoints:a,value:1}]",
        says="capture.interventions[0].hookpoints='a': should be a valid tuple.",
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:set_gate,hookpoints:[],value:1}]",
        says="capture.interventions[0].hookpoints is empty; give module paths or patterns",
    ),
    of(
        "setting",
        "clip_similarity capture.interventions=[{kind:clamp_gate,hookpoints:[a],low:1,high:0}]",
        says="capture.interventions[0].low=1.0: is above high=0.0",
    ),
    typed(
        "task=semdim",
        "select.word=kee",
        "visualization.max_samples=0",
        says=(
            "select.word=kee: asks for figures of samples, and visualization.max_samples=0 for "
            "none; leave that out, or give -1 (all)"
        ),
    ),
    typed(
        "task=semdim",
        "dataset.prompt=lexicon",
        says="dataset.prompt=lexicon: should be 'product' or 'lex_icon'. Did you mean 'lex_icon'?",
    ),
    # Parts that do not fit together.
    typed(
        "task=semdim",
        "dataset=photo",
        says=(
            "dataset=photo: its samples have no text, word, dimension1, dimension2, which "
            "SemanticDimensionAttention needs; choose a data set such as dataset=semdim or "
            "dataset=semdim_english or dataset=semdim_tiny"
        ),
    ),
    typed(
        "task=scienceqa",
        "analysis=semdim",
        says=(
            "dataset=scienceqa_tiny: its samples have no word, dimension1, dimension2, "
            "which SemanticDimensionAttention needs"
        ),
    ),
    typed(
        "task=clip_similarity",
        "dataset=scienceqa_tiny",
        says=(
            "dataset=scienceqa_tiny: its samples hold text, and model=tiny_clip "
            "(ClipVision) reads image alone; choose a model that reads text and image, or a"
            " data set such as dataset=images or dataset=photo or dataset=scenes"
        ),
    ),
    typed(
        "task=clip_similarity",
        "visualization=semdim",
        says=(
            "visualization: is made of word, which ClipSimilarity does not measure; choose "
            "the visualization=... of this study, or leave it out"
        ),
    ),
    typed(
        "task=clip_similarity",
        "numbers=semdim",
        says=(
            "numbers: is made of word, which ClipSimilarity does not measure; choose the "
            "numbers=... of this study, or leave it out"
        ),
    ),
    typed(
        "task=scienceqa",
        "dataset=trajectory_tiny",
        says=(
            "dataset=trajectory_tiny: its samples have no options, which ScienceQAHeads "
            "needs; choose a data set such as dataset=scienceqa or dataset=scienceqa_tiny"
        ),
    ),
    typed(
        "task=trajectory",
        "dataset=photo",
        says=(
            "dataset=photo: its samples have no text, which Trajectory needs; choose a data"
            " set such as dataset=scienceqa or dataset=scienceqa_tiny or dataset=trajectory"
            " or dataset=trajectory_tiny"
        ),
    ),
    typed(
        "task=trajectory",
        "dataset=qvhighlights_tiny",
        says=(
            "dataset=qvhighlights_tiny: its samples hold video, and model=tiny_qwen_vl "
            "(QwenVL) reads text and image alone; choose a model that reads text and video,"
            " or a data set such as dataset=scienceqa or dataset=scienceqa_tiny or "
            "dataset=trajectory or dataset=trajectory_tiny"
        ),
    ),
    typed(
        "task=avigate",
        "model=tiny_clip",
        says=(
            "ClipVision has no gates, which this task measures: name them in model.gates, or take "
            "a model that has some; mode=models lists which task runs with which model"
        ),
    ),
    typed(
        "task=avigate",
        "dataset=photo",
        says=(
            "dataset=photo: its samples hold image, and model=tiny_avigate_global (QdDetr) "
            "reads text and video alone; choose a model that reads image, or a data set "
            "such as dataset=qvhighlights or dataset=qvhighlights_tiny"
        ),
    ),
    typed(
        "task=avigate",
        "visualization=scienceqa",
        says=(
            "visualization: is made of max_head_per_layer, which GateTracing does not "
            "measure; choose the visualization=... of this study, or leave it out"
        ),
    ),
    typed(
        "mode=plan",
        "task=semdim",
        "dataset=photo",
        says=(
            "dataset=photo: its samples have no text, word, dimension1, dimension2, which "
            "SemanticDimensionAttention needs; choose a data set such as dataset=semdim or "
            "dataset=semdim_english or dataset=semdim_tiny"
        ),
    ),
    # The user's own YAML; rest of the command after it.
    own(
        "defaults: [config, _self_]\nbatch_sise: 3\n",
        says="batch_sise: no such key ({tmp}/mine.yaml, line 2). Did you mean 'batch_size'?",
    ),
    own(
        "defaults: [config, _self_]\nseed: -1\n",
        says="seed=-1: give a whole number from 0 to 4294967295 ({tmp}/mine.yaml, line 2)",
    ),
    own(
        "defaults: [config, _self_]\nseed: [\n",
        says=(
            "{tmp}/mine.yaml, line 3, column 1: not valid YAML: expected the node content, "
            "but found '<stream end>'"
        ),
    ),
    own(
        "defaults: [config, _self_]\nmodel: 3\n",
        says="model=3: give one of its options, such as model=NAME ({tmp}/mine.yaml, line 2)",
    ),
    own(
        "defaults: [config, _self_]\nmodel: {famly: clip}\n",
        says=(
            "model.famly: ClipVision takes no such option. Did you mean 'family'? Known: "
            "checkpoint, revision, dtype, init, trust_remote_code, architecture, device_map,"
            " max_memory, offload_folder, quantization, adapter, adapter_revision, merge_adapter,"
            " processor, family ({tmp}/mine.yaml, line 2)"
        ),
    ),
    own(
        "defaults: [config, _self_]\noutput: {root: ''}\n",
        says=(
            "output.root='': is empty; leave the key out, or give a value ({tmp}/mine.yaml, line 2)"
        ),
    ),
    own(
        "defaults: [config, _self_]\noutput: [1]\n",
        says="output: give its keys with values, such as output.KEY=...",
    ),
    own(
        "defaults: [config, _self_]\ncapture: {interventions: [1]}\n",
        says=(
            "capture.interventions[0]=1: give a mapping such as {kind: block, ...} "
            "({tmp}/mine.yaml, line 2)"
        ),
    ),
    own(
        "defaults: [config, {override model: tiny_clp}, _self_]\n",
        says=(
            "model=tiny_clp: no such option. Did you mean 'tiny_clip' or 'tiny_llava' or "
            f"'tiny_qwen_vl'? There are: {', '.join(MODELS)}"
        ),
    ),
    own(
        "defaults: [nowhere]\n",
        says=f"nowhere: {NOWHERE}",
    ),
    own("3\n", says="{tmp}/mine.yaml: holds 3, not keys with values"),
    own(
        "\t\n",
        says=(
            "{tmp}/mine.yaml, line 1, column 1: not valid YAML: found character '\\t' that "
            "cannot start any token"
        ),
    ),
    own(
        "defaults: [config, _self_]\nseed: 1\nseed: 2\n",
        says="{tmp}/mine.yaml, line 3, column 1: not valid YAML: found duplicate key seed",
    ),
    own(
        "defaults: [config, _self_]\ndataset:\n  path: ${nowhere}\n",
        says="dataset.path: Interpolation key 'nowhere' not found ({tmp}/mine.yaml, line 3)",
    ),
    own(
        "defaults: [config, _self_]\ndataset:\n  path: ${oc.env:NO_SUCH_VARIABLE}\n",
        says=(
            'dataset.path: KeyError raised while resolving interpolation: "Environment '
            "variable 'NO_SUCH_VARIABLE' not found\" ({tmp}/mine.yaml, line 3)"
        ),
    ),
    own(
        b"defaults: [config, _self_]\n# caf\xe9\n",
        says="{tmp}/mine.yaml: not UTF-8 text (invalid continuation byte); save it in UTF-8",
    ),
    own(FOLDER, says=f"mine: {NOWHERE}"),
    own(ABSENT, says=f"mine: {NOWHERE}"),
    own(
        "",
        says=("output.root: no such key here; the defaults of --config-name begin with `- config`"),
    ),
    own("- a\n", says="{tmp}/mine.yaml: holds ['a'], not keys with values"),
    # A result to open.
    typed(
        "mode=render",
        "results={tmp}/nowhere.h5",
        says="results={tmp}/nowhere.h5: no such file; give a results.h5 or a run directory",
    ),
    typed(
        "mode=render",
        "results={tmp}",
        says="results={tmp}: no such file; give a results.h5 or a run directory",
    ),
    typed(
        "mode=summary",
        "results=nowhere=1.h5",
        says=(
            "results=nowhere=1.h5: this value cannot be read as it stands; as one text it "
            "is typed 'results=\"nowhere=1.h5\"'"
        ),
    ),
    typed(
        "mode=compute",
        "results={tmp}/nowhere.h5",
        says="results={tmp}/nowhere.h5: no such file; give a results.h5 or a run directory",
    ),
    of("stored", "", says="results={tmp}/results.h5: not a readable HDF5 file ( ..."),
    of("stored", "no HDF5 at all", says="results={tmp}/results.h5: not a readable HDF5 file ( ..."),
    of(
        "stored",
        b"\x89HDF\r\n\x1a\n",
        says="results={tmp}/results.h5: not a readable HDF5 file ( ...",
    ),
    of("stored", b"\x89PNG", says="results={tmp}/results.h5: not a readable HDF5 file ( ..."),
    of(
        "stored",
        3000,
        says="results={tmp}/results.h5: damaged or changed since it was written (its checksum "
        "differs); take a copy that is whole, or measure again",
    ),
    of(
        "stored",
        FOLDER,
        says="results={tmp}/results.h5: no such file; give a results.h5 or a run directory",
    ),
    of(
        "stored",
        "@empty_group",
        says="{tmp}/results.h5: damaged, or not written by interp_lab ( ...",
    ),
    of("stored", "@no_schema", says="results={tmp}/results.h5: not a result of interp_lab"),
    of(
        "stored",
        "@newer",
        says=(
            "results={tmp}/results.h5: of schema version 99, this interp_lab knows versions"
            " up to 3; open it with the version that wrote it, or a newer one"
        ),
    ),
    of(
        "stored",
        "@unfinished",
        says="results={tmp}/results.h5: unfinished; run its command again to complete it",
    ),
    of(
        "stored",
        "@no_samples",
        says="{tmp}/results.h5: damaged, or not written by interp_lab ( ...",
    ),
    of(
        "stored",
        "@no_failures",
        says="{tmp}/results.h5: damaged, or not written by interp_lab ( ...",
    ),
    of(
        "stored",
        "@notes",
        says="{tmp}/results.h5: damaged, or not written by interp_lab ( ...",
    ),
    of(
        "stored",
        "@counts",
        says="{tmp}/results.h5: damaged, or not written by interp_lab ( ...",
    ),
    of(
        "stored",
        "@kind",
        says="{tmp}/results.h5: damaged, or not written by interp_lab ( ...",
    ),
    of(
        "stored",
        "@no_index",
        says="{tmp}/results.h5: damaged, or not written by interp_lab ( ...",
    ),
    # Pictures.
    of(
        "images",
        {},
        says=(
            "dataset.path={tmp}/pictures: no picture found (it holds no file); give pictures "
            "that Pillow reads, such as .png, .jpg, .tif or .webp"
        ),
    ),
    of(
        "images",
        {"a.png": ""},
        says=("a.png: {tmp}/pictures/a.png: not a picture, or of a format that is not supported"),
    ),
    of(
        "images",
        {"a.png": "text"},
        says=("a.png: {tmp}/pictures/a.png: not a picture, or of a format that is not supported"),
    ),
    of(
        "images",
        {"a.png": b"\x89PNG\r\n\x1a\n"},
        says=("a.png: {tmp}/pictures/a.png: not a picture, or of a format that is not supported"),
    ),
    of(
        "images",
        {"a.png": FOLDER},
        says=(
            "dataset.path={tmp}/pictures: no picture found (it holds no file); give pictures "
            "that Pillow reads, such as .png, .jpg, .tif or .webp"
        ),
    ),
    of(
        "images",
        {"a.txt": "text"},
        says=(
            "dataset.path={tmp}/pictures: no picture found (1 files are left out, which are no "
            "pictures to Pillow: 1 .txt); give pictures that Pillow reads, such as .png, .jpg, "
            ".tif or .webp"
        ),
    ),
    of(
        "images",
        {"a.png": ("RGB", (9000, 50))},
        says=(
            "a.png: {tmp}/pictures/a.png: 9000x50 pixels is more than 100 times as long as "
            "it is wide; cut it before use"
        ),
    ),
    of(
        "images",
        {"a.jpg": b"\xff\xd8\xff\xe0"},
        says=("a.jpg: {tmp}/pictures/a.jpg: not a picture, or of a format that is not supported"),
    ),
    of(
        "images",
        {"a.tif": ("F", (8, 8))},
        says=(
            "a.tif: {tmp}/pictures/a.tif: floating-point pixels have no defined range; "
            "convert to 8 bits"
        ),
    ),
    of(
        "images",
        {"a.png": ("L", (8, 8))},
        says=("dataset.path=['{tmp}/pictures', '{tmp}/pictures']: names '{tmp}/pictures' twice"),
        path=["{tmp}/pictures", "{tmp}/pictures"],
    ),
    of("images", {}, says="dataset.path=[]: is empty; give a path", path=[]),
    of("images", {}, says="dataset.path=3: should be a text: put it into quotes.", path=3),
    of(
        "images",
        {},
        says=(
            "dataset.path={tmp}/pictures/*.png: no picture found (it holds no file); give pictures "
            "that Pillow reads, such as .png, .jpg, .tif or .webp"
        ),
        path="{tmp}/pictures/*.png",
    ),
    of(
        "images",
        {},
        says="dataset.path='" + "a" * 79 + ": no such path (File name too long)",
        path="a" * 300,
    ),
    of(
        "images",
        {},
        says=(
            "dataset.path={tmp}/picture: no such file or folder ({tmp}/picture). Did you "
            "mean 'pictures'?"
        ),
        path="{tmp}/picture",
    ),
    # ScienceQA.
    of(
        "scienceqa", {"file": ""}, says="dataset.question_file={tmp}/questions.json: not JSON ( ..."
    ),
    of(
        "scienceqa",
        {"file": "3"},
        says="dataset.question_file={tmp}/questions.json: holds 3, not a list of records",
    ),
    of(
        "scienceqa",
        {"file": "null"},
        says="dataset.question_file={tmp}/questions.json: holds None, not a list of records",
    ),
    of(
        "scienceqa",
        {"file": "[]"},
        says="dataset.question_file={tmp}/questions.json: the list of records is empty",
    ),
    of(
        "scienceqa",
        {"file": "{}"},
        says=("dataset.question_file={tmp}/questions.json: holds an object, not a list of records"),
    ),
    of("scienceqa", {"file": "[3]"}, says="record 0: record 0 of the file is not an object"),
    of(
        "scienceqa",
        {"file": "[{]"},
        says="dataset.question_file={tmp}/questions.json: not JSON ( ...",
    ),
    of(
        "scienceqa",
        {"file": '[\n{"id": 1,\n}\n]'},
        says="dataset.question_file={tmp}/questions.json: not JSON ( ...",
    ),
    of(
        "scienceqa",
        {"file": b"\xff\xfe["},
        says=("dataset.question_file={tmp}/questions.json: not UTF-8 text (invalid start byte)"),
    ),
    of(
        "scienceqa",
        {"file": b'["caf\xe9"]'},
        says=(
            "dataset.question_file={tmp}/questions.json: not UTF-8 text (invalid continuation byte)"
        ),
    ),
    of("scienceqa", {"file": "[1e999999]"}, says="record 0: record 0 of the file is not an object"),
    of(
        "scienceqa",
        {"file": FOLDER},
        says="dataset.question_file={tmp}/questions.json: cannot read it (Is a directory)",
    ),
    of(
        "scienceqa",
        {"file": ABSENT},
        says=(
            "dataset.question_file={tmp}/questions.json: no such file or folder "
            "({tmp}/questions.json)."
        ),
    ),
    of(
        "scienceqa",
        {"file": "[" * 100_000},
        says="dataset.question_file={tmp}/questions.json: not JSON ( ...",
    ),
    of("scienceqa", {"id": None}, says="record 0: missing id: record 0 of the file has id None"),
    of("scienceqa", {"id": True}, says="record 0: missing id: record 0 of the file has id True"),
    of(
        "scienceqa",
        {"id": "a\x00"},
        says="record 0: missing id: record 0 of the file has id 'a\\x00'",
    ),
    of("scienceqa", {"id": ""}, says="record 0: missing id: record 0 of the file has id ''"),
    of("scienceqa", {"image": "nowhere.png"}, says="q: {tmp}/images/nowhere.png: no such file"),
    of(
        "scienceqa",
        {"image": "text.png"},
        says="q: {tmp}/images/text.png: not a picture, or of a format that is not supported",
    ),
    of(
        "scienceqa",
        {"image": "../x.png"},
        says="q: image='../x.png' lies outside dataset.image_folder",
    ),
    of("scienceqa", {"image": 3}, says="q: image=3: should be the path of a picture"),
    of("scienceqa", {"image": ""}, says="q: image='': should be the path of a picture"),
    of("scienceqa", {"image": None}, says="q: image=None: should be the path of a picture"),
    of(
        "scienceqa",
        {"conversations": None},
        says="q: conversations: should be a list of a question and its answer",
    ),
    of(
        "scienceqa",
        {"conversations": []},
        says="q: conversations: should be a list of a question and its answer",
    ),
    of(
        "scienceqa",
        {"conversations": 3},
        says="q: conversations: should be a list of a question and its answer",
    ),
    of(
        "scienceqa",
        {"conversations": [{"from": "human"}]},
        says="q: conversations: should be a list of a question and its answer",
    ),
    of(
        "scienceqa",
        {"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "A"}]},
        says="q: the question is empty",
    ),
    of(
        "scienceqa",
        {
            "conversations": [
                {"from": "human", "value": "What?\nA. a\nB. b"},
                {"from": "gpt", "value": "Z"},
            ]
        },
        says="q: answer 'Z' is none of the options A, B",
    ),
    of(
        "scienceqa",
        {"conversations": [{"from": "human", "value": "What?\nA. a\nB. b"}]},
        says="q: conversations: should be a list of a question and its answer",
    ),
    of(
        "scienceqa",
        {},
        says="dataset.image_folder is not given: 1 of 1 records name a picture",
        image_folder=None,
    ),
    of(
        "scienceqa",
        {},
        says="dataset.image_folder={tmp}/nowhere: no such file or folder ({tmp}/nowhere).",
        image_folder="{tmp}/nowhere",
    ),
    of(
        "scienceqa",
        {},
        says="dataset.image_folder={tmp}/questions.json: not a folder",
        image_folder="{tmp}/questions.json",
    ),
    of("scienceqa", {}, says="dataset.ids: no record 'x' in the question file.", ids=["x"]),
    of("scienceqa", {}, says="dataset.ids: is empty", ids=[]),
    of("scienceqa", {}, says="dataset.ids=['q', 'q']: names 'q' twice", ids=["q", "q"]),
    of(
        "scienceqa",
        {},
        says="dataset.text_only='maybe': should be 'skip' or 'include'.",
        text_only="maybe",
    ),
    of("scienceqa", {}, says="dataset.order=3: should be 'file' or 'id'.", order=3),
    of("scienceqa", {}, says="dataset.question_file=: is empty; give a path", question_file=""),
    of(
        "scienceqa",
        {},
        says=(
            "dataset.conv_mode='vicuna': should be 'vicuna_v1', 'v1', 'llava_v1', 'llava_v0', "
            "'llava_llama_2', 'mpt', 'plain', 'v0_plain' or 'chat_template'. Did you mean "
            "'vicuna_v1'?"
        ),
        conv_mode="vicuna",
    ),
    of("scienceqa", {}, says="dataset.max_samples=0: give -1 (all) or at least 1", max_samples=0),
    of(
        "scienceqa",
        {},
        says="dataset.instruction=3: should be a text: put it into quotes.",
        instruction=3,
    ),
    of(
        "scienceqa",
        [
            {
                "id": "q",
                "image": "1.png",
                "conversations": [
                    {"from": "human", "value": "What?\nA. a\nB. b"},
                    {"from": "gpt", "value": "A"},
                ],
            },
            {
                "id": "q",
                "image": "1.png",
                "conversations": [
                    {"from": "human", "value": "What?\nA. a\nB. b"},
                    {"from": "gpt", "value": "A"},
                ],
            },
        ],
        says="q (duplicate, record 1): duplicate id 'q': an earlier record has it",
    ),
    # Trajectories.
    of("trajectory", {"file": ""}, says="dataset.data_file={tmp}/data.json: not JSON ( ..."),
    of(
        "trajectory",
        {"file": '{"a": 1}'},
        says="dataset.data_file={tmp}/data.json: holds an object, not a list of records",
    ),
    of("trajectory", {"file": "[1]"}, says="record 0: record 0 of the file is not an object"),
    of(
        "trajectory",
        {"file": '[{"id": "p"}'},
        says="dataset.data_file={tmp}/data.json: not JSON ( ...",
    ),
    of(
        "trajectory",
        {"file": ABSENT},
        says="dataset.data_file={tmp}/data.json: no such file or folder ({tmp}/data.json).",
    ),
    of("trajectory", {"id": None}, says="record 0: missing id: record 0 of the file has id None"),
    of("trajectory", {"id": [1]}, says="record 0: missing id: record 0 of the file has id [1]"),
    of("trajectory", {"problem": None}, says="p: problem=None: should be a text"),
    of("trajectory", {"problem": " "}, says="p: problem=' ': should be a text"),
    of("trajectory", {"problem": 3}, says="p: problem=3: should be a text"),
    of("trajectory", {"image": None}, says="p: image=None: should be a path or a list of paths"),
    of("trajectory", {"image": []}, says="p: image: the list of pictures is empty"),
    of("trajectory", {"image": 5}, says="p: image=5: should be a path or a list of paths"),
    of("trajectory", {"image": "gone.png"}, says="p: {tmp}/gone.png: no such file"),
    of(
        "trajectory",
        {"image": "data.json"},
        says="p: {tmp}/data.json: not a picture, or of a format that is not supported",
    ),
    of(
        "trajectory",
        {"image": ["1.png", "1.png", "1.png"]},
        says="p: image: 3 pictures, dataset.max_images=2 allows 2; raise it",
    ),
    of(
        "trajectory",
        {"image": ["1.png", 3]},
        says="p: image=['1.png', 3]: should be a path or a list of paths",
    ),
    of("trajectory", {"answer": "\ud800"}, says="p: answer: holds letters that cannot be stored"),
    of(
        "trajectory",
        {},
        says="dataset.image_dir={tmp}/nowhere: no such file or folder ({tmp}/nowhere).",
        image_dir="{tmp}/nowhere",
    ),
    of(
        "trajectory",
        {},
        says="dataset.image_dir={tmp}/data.json: not a folder",
        image_dir="{tmp}/data.json",
    ),
    of("trajectory", {}, says="dataset.sample_idx=1: there are 1 records, 0 to 0", sample_idx=[1]),
    of(
        "trajectory",
        {},
        says=(
            "dataset.sample_idx='a': should be a valid integer, unable to parse string as "
            "an integer."
        ),
        sample_idx="a",
    ),
    of("trajectory", {}, says="dataset.max_images=0: give at least 1", max_images=0),
    of("trajectory", {}, says="dataset.ids: no record 'x' in the file.", ids=["x"]),
    of("trajectory", {}, says="dataset.ids=['p', 'p']: names 'p' twice", ids=["p", "p"]),
    # Words.
    of("semdim", {"file": ""}, says="dataset.data_file={tmp}/words.json: not JSON ( ..."),
    of(
        "semdim",
        {"file": "[]"},
        says=("dataset.data_file={tmp}/words.json: should be an object, language -> list of words"),
    ),
    of("semdim", {"file": "{}"}, says="dataset.data_file={tmp}/words.json: holds no word"),
    of("semdim", {"file": {"en": []}}, says="dataset.data_file={tmp}/words.json: holds no word"),
    of(
        "semdim",
        {"file": {"en": 3}},
        says="dataset.data_file={tmp}/words.json: 'en' should hold a list of words",
    ),
    of(
        "semdim",
        {"file": {"en": {}}},
        says="dataset.data_file={tmp}/words.json: 'en' should hold a list of words",
    ),
    of("semdim", {"file": {3: []}}, says="dataset.data_file={tmp}/words.json: holds no word"),
    of("semdim", {"file": {"en": [3]}}, says="en/record 0: word: should be a text"),
    of("semdim", {"file": "{"}, says="dataset.data_file={tmp}/words.json: not JSON ( ..."),
    of(
        "semdim",
        {"file": ABSENT},
        says="dataset.data_file={tmp}/words.json: no such file or folder ({tmp}/words.json).",
    ),
    of("semdim", {"word": None}, says="en/record 0: word: should be a text"),
    of("semdim", {"word": 3}, says="en/record 0: word: should be a text"),
    of("semdim", {"word": ""}, says="en/record 0: word: should be a text"),
    of("semdim", {"word": "a/b"}, says="en/a|b/big-small/plain: no file can be named after 'a/b'"),
    of(
        "semdim",
        {"word": "nowhere"},
        says=(
            "en/nowhere/big-small/plain: {tmp}/audio/en/nowhere.wav: no such audio file, "
            "nor a .flac"
        ),
    ),
    of(
        "semdim",
        {"word": "text"},
        says=(
            "en/text/big-small/plain: {tmp}/audio/en/text.wav: cannot be read as audio "
            "(Error opening '{tmp}/audio/en/text.wav': Format not recognised.)"
        ),
    ),
    of("semdim", {"dimensions": None}, says="en/achoo: dimensions: should be an object of pairs"),
    of("semdim", {"dimensions": []}, says="en/achoo: dimensions: should be an object of pairs"),
    of(
        "semdim",
        {"dimensions": {}},
        says=(
            "dataset.data_file={tmp}/words.json: no word is left to measure (1 without "
            "dimensions, 0 without those of dataset.dimensions)"
        ),
    ),
    of(
        "semdim",
        {"dimensions": {"big": {"answer": "big"}}},
        says="en/achoo/pair 0: dimensions: 'big' should be two features, such as 'big-small'",
    ),
    of(
        "semdim",
        {"dimensions": {"big-small": {"answer": "huge"}}},
        says=("en/achoo/pair 0: dimensions: the answer of 'big-small' is 'huge', not big or small"),
    ),
    of(
        "semdim",
        {"dimensions": {"big-small": "small"}},
        says=("en/achoo/pair 0: dimensions: the answer of 'big-small' is None, not big or small"),
    ),
    of(
        "semdim",
        {"dimensions": {"big-big": {"answer": "big"}}},
        says=("en/achoo/pair 0: dimensions: 'big-big' should be two features, such as 'big-small'"),
    ),
    of(
        "semdim",
        {},
        says="dataset.audio_root is not given: dataset.data_type=audio needs it",
        audio_root=None,
    ),
    of(
        "semdim",
        {},
        says="dataset.audio_root={tmp}/nowhere: no such file or folder ({tmp}/nowhere).",
        audio_root="{tmp}/nowhere",
    ),
    of(
        "semdim",
        {},
        says="dataset.audio_root={tmp}/words.json: not a folder",
        audio_root="{tmp}/words.json",
    ),
    of("semdim", {}, says="dataset.language=xx: unknown. Known: en", language="xx"),
    of("semdim", {}, says="dataset.language=['en', 'en']: names 'en' twice", language=["en", "en"]),
    of(
        "semdim",
        {},
        says=("dataset.data_type='sound': should be 'original', 'romanized', 'ipa' or 'audio'."),
        data_type="sound",
    ),
    of(
        "semdim",
        {},
        says="en/achoo/big-small/plain: ipa: should be a text, is None",
        data_type="ipa",
    ),
    of(
        "semdim",
        {},
        says="en/achoo/big-small/plain: romanization: should be a text, is None",
        data_type="romanized",
    ),
    of(
        "semdim",
        {},
        says="dataset.word_group=rare: unknown. Known in the chosen languages: none",
        word_group="rare",
    ),
    of(
        "semdim",
        {},
        says=(
            "dataset.dimensions=hot-cold: unknown. Known: good-bad, beautiful-ugly, "
            "pleasant-unpleasant, strong-weak, big-small, rugged-delicate, active-passive, "
            "fast-slow, sharp-round, realistic-fantastical, structured-disorganized, "
            "ordinary-unique, interesting-uninteresting, simple-complex, abrupt-continuous,"
            " exciting-calming, hard-soft, happy-sad, harsh-mellow, heavy-light, "
            "inhibited-free, masculine-feminine, solid-nonsolid, tense-relaxed, "
            "dangerous-safe"
        ),
        dimensions=["hot-cold"],
    ),
    of(
        "semdim",
        {},
        says=(
            "dataset.dimensions=big: unknown. Did you mean 'big-small'? Known: good-bad, "
            "beautiful-ugly, pleasant-unpleasant, strong-weak, big-small, rugged-delicate, "
            "active-passive, fast-slow, sharp-round, realistic-fantastical, "
            "structured-disorganized, ordinary-unique, interesting-uninteresting, "
            "simple-complex, abrupt-continuous, exciting-calming, hard-soft, happy-sad, "
            "harsh-mellow, heavy-light, inhibited-free, masculine-feminine, solid-nonsolid,"
            " tense-relaxed, dangerous-safe"
        ),
        dimensions="big",
    ),
    of(
        "semdim",
        {},
        says=(
            "dataset.prompt_file={tmp}/words.json: no 'semantic_dimension' at the top "
            "level, which has: en"
        ),
        prompt_file="{tmp}/words.json",
    ),
    of(
        "semdim",
        {},
        says="dataset.alignment_dir={tmp}/nowhere: no such file or folder ({tmp}/nowhere).",
        alignment_dir="{tmp}/nowhere",
    ),
    of(
        "semdim",
        {},
        says="dataset.flip='maybe': should be a valid boolean, unable to interpret input.",
        flip="maybe",
    ),
    of("semdim", {}, says="dataset.max_samples=-2: give -1 (all) or at least 1", max_samples=-2),
    # Videos.
    of("qvhighlights", {"file": ""}, says="dataset.annotations={tmp}/val.jsonl: holds no record"),
    of(
        "qvhighlights",
        {"file": "[]"},
        says=(
            "dataset.annotations={tmp}/val.jsonl: a JSON list; QVHighlights is JSON lines: "
            "one record a line, without brackets around them or commas between them"
        ),
    ),
    of(
        "qvhighlights",
        {"file": "3"},
        says=(
            "dataset.annotations={tmp}/val.jsonl: holds no record (line 1 of the "
            "annotations is not a record: '3')"
        ),
    ),
    of(
        "qvhighlights",
        {"file": '{"qid": 7'},
        says=(
            "dataset.annotations={tmp}/val.jsonl: holds no record (line 1 of the "
            "annotations is not JSON ( ..."
        ),
    ),
    of("qvhighlights", {"file": '{"qid": 7}\n{'}, says="7: query=None: should be a text"),
    of(
        "qvhighlights",
        {"file": ABSENT},
        says="dataset.annotations={tmp}/val.jsonl: no such file or folder ({tmp}/val.jsonl).",
    ),
    of(
        "qvhighlights",
        {"file": FOLDER},
        says=(
            "dataset.annotations={tmp}/val.jsonl: cannot read it as text ([Errno 21] Is a "
            "directory: '{tmp}/val.jsonl')"
        ),
    ),
    of(
        "qvhighlights",
        {"file": b"\xff\xfe"},
        says=(
            "dataset.annotations={tmp}/val.jsonl: cannot read it as text ('utf-8' codec "
            "can't decode byte ..."
        ),
    ),
    of("qvhighlights", {"qid": None}, says="record 0: qid=None: should be a number or a text"),
    of("qvhighlights", {"qid": True}, says="record 0: qid=True: should be a number or a text"),
    of("qvhighlights", {"qid": "../7"}, says="../7: qid='../7': should not name a folder"),
    of(
        "qvhighlights",
        {"qid": 8},
        says="8: no text features: {tmp}/clip_text_features/qid8.npz is missing",
    ),
    of("qvhighlights", {"query": None}, says="7: query=None: should be a text"),
    of("qvhighlights", {"query": 3}, says="7: query=3: should be a text"),
    of("qvhighlights", {"query": " "}, says="7: query=' ': should be a text"),
    of(
        "qvhighlights",
        {"duration": None},
        says="7: duration=None: should be a number of seconds above 0",
    ),
    of(
        "qvhighlights", {"duration": 0}, says="7: duration=0: should be a number of seconds above 0"
    ),
    of(
        "qvhighlights",
        {"duration": "8"},
        says="7: duration='8': should be a number of seconds above 0",
    ),
    of(
        "qvhighlights",
        {"duration": True},
        says="7: duration=True: should be a number of seconds above 0",
    ),
    of("qvhighlights", {"vid": None}, says="7: vid=None: should be a text"),
    of(
        "qvhighlights",
        {"vid": "../v"},
        says="7: vid='../v': should be the name of a file, without folders",
    ),
    of(
        "qvhighlights",
        {"vid": "nowhere"},
        says="7: no video features: {tmp}/slowfast_features/nowhere.npz is missing",
    ),
    of(
        "qvhighlights",
        {"vid": "text"},
        says="7: video features {tmp}/slowfast_features/text.npz: cannot be read ( ...",
    ),
    of(
        "qvhighlights",
        {"vid": "other"},
        says=(
            "7: video features {tmp}/slowfast_features/other.npz: no array 'features'; it "
            "holds rows."
        ),
    ),
    of(
        "qvhighlights",
        {"relevant_windows": []},
        says="7: relevant_windows=[]: should be a list of [start, end]",
    ),
    of(
        "qvhighlights",
        {"relevant_windows": 3},
        says="7: relevant_windows=3: should be a list of [start, end]",
    ),
    of(
        "qvhighlights",
        {"relevant_windows": [[4, 2]]},
        says="7: relevant_windows=[[4, 2]]: should be 0 <= start < end",
    ),
    of(
        "qvhighlights",
        {"relevant_windows": [[9, 10]]},
        says="7: relevant_windows=[[9, 10]]: one begins after the video ends (8 s)",
    ),
    of(
        "qvhighlights",
        {"relevant_windows": [["a", "b"]]},
        says="7: relevant_windows=[['a', 'b']]: should be a list of [start, end]",
    ),
    of(
        "qvhighlights",
        {"relevant_clip_ids": [0], "saliency_scores": []},
        says="7: relevant_clip_ids and saliency_scores do not go together",
    ),
    of("qvhighlights", {"audio": 3}, says="7: audio=3: should be a text or left out"),
    of(
        "qvhighlights",
        {},
        says="dataset.feature_root={tmp}/nowhere: no such file or folder ({tmp}/nowhere).",
        feature_root="{tmp}/nowhere",
    ),
    of(
        "qvhighlights",
        {},
        says="dataset.video_features and dataset.video_widths: one width a folder",
        video_features=[],
    ),
    of(
        "qvhighlights",
        {},
        says=(
            "dataset.video_features=['clip_features', 'clip_features']: names 'clip_features' twice"
        ),
        video_features=["clip_features", "clip_features"],
    ),
    of(
        "qvhighlights",
        {},
        says=(
            "dataset.text_features={tmp}/clip_text: no such file or folder "
            "({tmp}/clip_text). Did you mean 'clip_text_features' or 'clip_features'?"
        ),
        text_features="clip_text",
    ),
    of(
        "qvhighlights",
        {},
        says=(
            "7: video features {tmp}/clip_features/v.npz: 3 columns, expected 4; name the "
            "right folder, or the width in the data set's YAML"
        ),
        video_widths=[3, 4],
    ),
    of(
        "qvhighlights",
        {},
        says=(
            "7: text features {tmp}/clip_text_features/qid7.npz: 3 columns, expected 5; "
            "name the right folder, or the width in the data set's YAML"
        ),
        text_width=5,
    ),
    of(
        "qvhighlights",
        {},
        says="dataset.text_key='tokens': should be 'last_hidden_state' or 'pooler_output'.",
        text_key="tokens",
    ),
    of(
        "qvhighlights",
        {},
        says=(
            "dataset.ctx_mode='tef': should be 'video_tef' or 'video'. Did you mean 'video_tef'?"
        ),
        ctx_mode="tef",
    ),
    of(
        "qvhighlights",
        {},
        says="dataset.max_clips, max_words and clip_seconds: should be above 0",
        max_clips=0,
    ),
    of(
        "qvhighlights",
        {},
        says="dataset.clip_seconds=inf: should be a finite number.",
        clip_seconds=float("inf"),
    ),
    of("qvhighlights", {}, says="dataset.ids: no qid 'x' in the annotations.", ids=["x"]),
    of(
        "qvhighlights",
        {},
        says=(
            "7: audio features {tmp}/pann_features/v.npy: 3 columns, expected 9; name the "
            "right folder, or the width in the data set's YAML"
        ),
        audio_width=9,
    ),
    of(
        "qvhighlights", {}, says="dataset.max_samples=0: give -1 (all) or at least 1", max_samples=0
    ),
]
