// Package notify tells the service manager that has started the program how it is, as systemd's
// sd_notify does: a datagram to the socket that NOTIFY_SOCKET names. Without one nothing happens.
package notify

import (
	"net"
	"os"
	"strconv"
	"strings"
)

// Ready says that the program serves, for the first time or again after Reloading.
func Ready(status string) error { return send("READY=1", "STATUS="+status) }

// Reloading says that the program reads its files again. Ready must follow.
func Reloading() error {
	return send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonic().Microseconds(), 10))
}

// Stopping says that the program drains, and will end.
func Stopping(status string) error { return send("STOPPING=1", "STATUS="+status) }

func send(lines ...string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.Dial("unixgram", path) // a path that begins with "@" is an abstract one
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(strings.Join(lines, "\n")))
	return err
}
