//go:build unix && !linux

package proc

func readSystem(s *Stats) { readUsage(s) }
