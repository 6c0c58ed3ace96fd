//go:build !linux

package pace

import "time"

func fineSleep() (sleep func(time.Duration), done func()) {
	return time.Sleep, func() {}
}
