//go:build race

package testkit

// RaceEnabled tells whether the race detector runs.
const RaceEnabled = true
