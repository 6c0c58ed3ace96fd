//go:build !unix

package proc

func readSystem(*Stats) {}
