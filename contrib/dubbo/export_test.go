package dubbo

import "net"

// For the tests: what can't be seen without a port of its own, or a limit of memory.
var (
	ProtocolsOf = (*Config).protocols
	ShareMemory = shareMemory
)

// ListenerOf is the listener of a protocol, for a test that breaks it.
func ListenerOf(s *Server, i int) net.Listener { return s.ports[i].ln }
