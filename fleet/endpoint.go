package fleet

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"

	"github.com/sluicerpc/sluice/internal/errtext"
)

// An Endpoint is one address that serves what a fleet is for.
type Endpoint struct {
	// Addr is "host:port", or "unix:PATH": what kernel.Dial takes, without a protocol. An
	// Endpoint is known by it: of two with the same in a Set the first counts.
	Addr string
	// Name is "host:port" too: whom TLS verifies, and the authority of HTTP/2. Empty is Addr.
	Name string
	// Weight is the endpoint's share of calls and streams, beside the others', from 1 to
	// MaxWeight. Zero is 1. RoundRobin does not look at it.
	Weight int
	// Tag is what else the registry says of it, for Options.Filter and for people.
	Tag string
}

// MaxWeight is the largest Endpoint.Weight.
const MaxWeight = 1_000_000

// mostText is how many bytes the texts of an Endpoint have, each.
const mostText = 1024

// check completes an endpoint, and returns why it can't be one.
func (e *Endpoint) check() error {
	if e.Weight == 0 {
		e.Weight = 1
	}
	switch {
	case len(e.Addr) > mostText || len(e.Name) > mostText || len(e.Tag) > mostText:
		return fmt.Errorf("endpoint %s: longer than %d bytes", errtext.Quote(errtext.Clip(e.Addr, 40)), mostText)
	case e.Weight < 1 || e.Weight > MaxWeight:
		return fmt.Errorf("endpoint %s: its weight is not from 1 to %d", errtext.Quote(e.Addr), MaxWeight)
	}
	if err := checkAddr(e.Addr); err != nil {
		return err
	}
	if e.Name != "" && e.Name != e.Addr {
		return checkAddr(e.Name)
	}
	return nil
}

func checkAddr(addr string) error {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok && path != "" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	switch {
	case err != nil:
		return fmt.Errorf("endpoint %s: %w", errtext.Quote(addr), err)
	case host == "" || port == "":
		return fmt.Errorf("endpoint %s: host or port is missing", errtext.Quote(addr))
	case strings.IndexFunc(addr, func(r rune) bool { return unicode.IsSpace(r) || r == '/' || !unicode.IsPrint(r) }) >= 0:
		return fmt.Errorf("endpoint %s: not an address", errtext.Quote(addr))
	}
	return nil
}

// A Set is what a registry says at one moment: all endpoints that there are.
//
// A set without endpoints is no reason to stop: a fleet goes on with the last set that had
// some.
type Set struct {
	// Endpoints are the receiver's: who has sent the Set does not change them any more.
	Endpoints []Endpoint
	// Err is why the registry could not be asked, or, beside Endpoints, why some are missing.
	// It is shown by Client.Snapshot.
	Err error
}

// mostErrors is how many lines a Set's error names.
const mostErrors = 3

// parse reads endpoints from lines as brpc's files have them: an address, and behind white
// space a tag, up to a '#'. A tag that begins with a number has the weight there. What can't
// be read is left out, and named in Set.Err.
func parse(lines []string) (set Set) {
	var bad []error
	for _, line := range lines {
		e, err := parseLine(line)
		switch {
		case err != nil:
			bad = append(bad, err)
		case e.Addr != "":
			set.Endpoints = append(set.Endpoints, e)
		}
	}
	set.Err = firstOf(bad)
	return set
}

// firstOf joins the first few errors, and counts the others.
func firstOf(bad []error) error {
	if n := len(bad) - mostErrors; n > 0 {
		bad = append(bad[:mostErrors:mostErrors], fmt.Errorf("and %d more", n))
	}
	return errors.Join(bad...)
}

// parseLine reads one line. One that is empty, or a comment, gives no address.
func parseLine(line string) (e Endpoint, err error) {
	line, _, _ = strings.Cut(line, "#")
	line = strings.TrimSpace(line)
	end := strings.IndexFunc(line, unicode.IsSpace)
	if end < 0 {
		end = len(line)
	}
	e.Addr, e.Tag = line[:end], strings.TrimSpace(line[end:])
	if e.Addr == "" {
		return e, nil
	}
	if fields := strings.Fields(e.Tag); len(fields) > 0 {
		n, err := strconv.Atoi(fields[0])
		switch {
		case errors.Is(err, strconv.ErrRange), err == nil && n == 0: // zero is no weight here
			e.Weight = -1
		case err == nil:
			e.Weight = n
		}
	}
	if err := e.check(); err != nil {
		return Endpoint{}, err
	}
	return e, nil
}
