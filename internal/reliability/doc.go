// Package reliability holds tests that break the path between a client and a server, and check
// that nobody is told anything that is not so.
//
// The two are processes of their own: the test's binary is the client and, once more, the server.
// Between them is a relay that breaks connections at a byte (relay). A scenario is made of its
// seed: wire, TLS, ways to send and to receive, fault, direction, byte (scenario). Each side
// keeps an account of what it has sent, taken and been told (side), and the two are compared when
// the scenario is over (oracle).
package reliability
