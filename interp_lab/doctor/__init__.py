"""What this machine can do, and whether capture is exact on it: `mode=doctor`.

`checkup` runs every check and prints the table; each other module is one concern and returns
`Finding`s. `kernels` and `proof` compare captured numbers with float64 arithmetic of their own
(`exact`), which shares no code with the capture that they check.
"""
