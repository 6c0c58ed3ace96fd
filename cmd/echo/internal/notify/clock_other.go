//go:build !linux

package notify

import "time"

// monotonic is for systemd alone.
func monotonic() time.Duration { return 0 }
