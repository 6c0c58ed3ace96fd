// Package pool has the messages of streams, and the memory that they live in.
//
// Programs use the first of these:
//
//   - Message, which New, Copy and MessageOf make;
//   - Compression, which StreamOptions and Message.SetCompression choose.
//
// The rest is for implementations of wires and streams, in this module and outside: Arena,
// Queue, Scratch, Notice, Cost and SetCost, MarkPacked and IsPacked, OnTouch.
//
// Small messages share a block: a burst that arrives together is carved out of
// one 16 KiB piece of memory, so that a 64-byte message costs neither an
// allocation nor a trip to a pool of its own. Large messages own a buffer of
// their size class. Both kinds come from bytebufferpool and go back there when
// every message of theirs has been released. A message that is never released
// is left to the garbage collector: it costs garbage, never a leak.
package pool
