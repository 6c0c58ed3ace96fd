//go:build !linux

package reliability

import "syscall"

func tinyBuffers(_, _ string, _ syscall.RawConn) error { return nil }

func victim() {}
