// Package interop holds tests of the protocols of other systems against the whole
// kernel: what they carry, what they can't, and what a hostile peer may try.
package interop
