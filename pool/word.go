package pool

// A 32-bit system has no int for lengths and credit as the wires know them, so that sums of
// a peer's could overflow: the compiler says so here, before anything runs.
const a64BitSystemIsNeeded = 1 << 32

var _ int = a64BitSystemIsNeeded
