// Package reliability holds tests that break the path between a client and a server, or one of
// them, and check that nobody is told anything that is not so. docs/reliability.md has the promises,
// and how to run all of it.
//
// The two are processes of their own: the test's binary is the client and, once more, the server.
// Between them is a relay that breaks connections at a byte (relay). A scenario is made of its
// seed: wire, TLS, ways to send and to receive, fault, direction, byte (scenario). Each side
// keeps an account of what it has sent, taken and been told (side), and the two are compared when
// the scenario is over (oracle). A process that is killed has said before what it was about to do
// (load).
//
// The oracle was tried on kernels that were broken on purpose, with 250 to 400 scenarios each. It
// found them all but the last; in brackets is how many scenarios failed.
//
//   - A message in a hundred is dropped, or comes twice, or behind the next one (26, 62, 28).
//   - A lost connection ends streams in order (61).
//   - Checksums are not verified (1, for few scenarios flip a bit of the native wire; and
//     TestEveryBit, which ends after ten cases).
//   - Streams of a lost connection are said not to be processed (84).
//   - An Observer is not told of one failed stream's end in twenty; or twice, of one in a hundred
//     (19, 51).
//   - One stream in thirty is not told that its connection is lost (1 of 24, after as long as a
//     stream may wait).
//   - A goroutine is left behind for one lost stream in a hundred (a leak, in each group).
//   - Messages that are dropped on arrival are not released: not found, for in scenarios everything
//     that arrives is taken.
package reliability
