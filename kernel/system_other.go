//go:build !unix

package kernel

func descriptorBound(most int, _ bool) int { return most }

func temporary(error) bool { return false }
