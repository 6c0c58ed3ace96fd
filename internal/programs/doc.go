// Package programs holds a test that runs random programs on the public API, on every wire: a
// client of ours must never trip a server of ours, whatever the program does with it.
//
// A program is made of its seed: limits, clients, and what each of their goroutines and each
// handler does (plan). Each side of each stream does random things on its own (side). Both
// sides are in one process, so that what came can be compared with what was sent (ledger). The
// wires are a table.
package programs
