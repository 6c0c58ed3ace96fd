// Package testkit helps tests that need a server and a client which are connected.
package testkit

import "time"

// Patience is how long a test over real sockets may take, and how long what
// follows a test may need to settle.
const Patience = 3 * time.Minute
