package load

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Fault is a fault to inject during a run.
type Fault struct {
	At    time.Duration // in the measured window
	Kind  FaultKind
	Share float64       // of the connections, for KillConns
	For   time.Duration // how long, for the others
	Delay time.Duration // each way, for DelayAll
}

// A FaultKind is a kind of fault.
type FaultKind string

const (
	// KillConns resets connections.
	KillConns FaultKind = "kill-conns"
	// StallReaders keeps the client from receiving.
	StallReaders FaultKind = "stall-readers"
	// DelayAll holds back all that is sent, in both directions.
	DelayAll FaultKind = "delay"
)

const faultUsage = "want AT=kill-conns:SHARE%, AT=stall-readers:FOR or AT=delay:DELAY/FOR, like 5s=kill-conns:10%"

// ParseFault reads "5s=kill-conns:10%", "5s=stall-readers:2s" or
// "5s=delay:30ms/5s".
func ParseFault(text string) (Fault, error) {
	bad := func() (Fault, error) { return Fault{}, fmt.Errorf("fault %q: %s", text, faultUsage) }
	at, what, ok1 := strings.Cut(text, "=")
	kind, arg, ok2 := strings.Cut(what, ":")
	f := Fault{Kind: FaultKind(kind)}
	var err error
	if f.At, err = time.ParseDuration(at); err != nil || f.At < 0 || !ok1 || !ok2 {
		return bad()
	}
	switch f.Kind {
	case KillConns:
		var percent float64
		percent, err = strconv.ParseFloat(strings.TrimSuffix(arg, "%"), 64)
		if f.Share = percent / 100; err != nil || !(f.Share > 0 && f.Share <= 1) {
			return bad()
		}
	case StallReaders:
		if f.For, err = time.ParseDuration(arg); err != nil || f.For <= 0 {
			return bad()
		}
	case DelayAll:
		delay, length, ok := strings.Cut(arg, "/")
		var err2 error
		f.Delay, err = time.ParseDuration(delay)
		f.For, err2 = time.ParseDuration(length)
		if !ok || err != nil || err2 != nil || f.Delay <= 0 || f.For <= 0 {
			return bad()
		}
	default:
		return bad()
	}
	return f, nil
}

// String writes f as ParseFault reads it.
func (f Fault) String() string {
	switch f.Kind {
	case KillConns:
		return fmt.Sprintf("%v=%s:%g%%", f.At, f.Kind, 100*f.Share)
	case StallReaders:
		return fmt.Sprintf("%v=%s:%v", f.At, f.Kind, f.For)
	}
	return fmt.Sprintf("%v=%s:%v/%v", f.At, f.Kind, f.Delay, f.For)
}

// MarshalText is String.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText is ParseFault.
func (f *Fault) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFault(string(text))
	return err
}
