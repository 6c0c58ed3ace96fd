//go:build !unix

package kernel

func descriptorBound(most int) int { return most }

func temporary(error) bool { return false }
