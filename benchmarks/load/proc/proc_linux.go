package proc

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"
)

// readSystem fills in what /proc and getrusage know.
func readSystem(s *Stats) {
	readUsage(s)
	status := fields("/proc/self/status")
	s.RSS, s.PeakRSS = status["VmRSS"]<<10, status["VmHWM"]<<10
	io := fields("/proc/self/io")
	s.ReadCalls, s.WriteCalls = io["syscr"], io["syscw"]
}

// fields reads lines of "name: number ...".
func fields(path string) map[string]uint64 {
	m := make(map[string]uint64)
	text, err := os.ReadFile(path)
	if err != nil {
		return m // not readable in this container: the figures stay 0
	}
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		name, rest, _ := strings.Cut(sc.Text(), ":")
		if f := strings.Fields(rest); len(f) > 0 {
			if v, err := strconv.ParseUint(f[0], 10, 64); err == nil {
				m[name] = v
			}
		}
	}
	return m
}
