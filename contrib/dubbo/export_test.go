package dubbo

// For the tests: what can't be seen without a port of its own, or a limit of memory.
var (
	ProtocolsOf = (*Config).protocols
	ShareMemory = shareMemory
)
