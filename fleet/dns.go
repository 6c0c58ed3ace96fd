package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	dnsInterval = 30 * time.Second
	dnsGap      = time.Second // between two lookups
	dnsTimeout  = 10 * time.Second
)

// DNS returns the resolver of "dns://host:port" and "dns://_service._proto.domain" that asks r
// once in an interval, and when a connection to an endpoint has failed, once a second at most.
// A zero interval is 30 s and a nil r is net.DefaultResolver: that is what dns:// in a target
// means. "dns:///host:port" is the same.
//
// A host's addresses are the endpoints, with the host as their Name. A name that begins with '_'
// is one of SRV records: their targets are the endpoints, with their weights. Those of the
// smallest priority count alone. A lookup has 10 s; one that fails or finds nothing leaves the
// fleet with what it has.
func DNS(interval time.Duration, r *net.Resolver) Resolver {
	if r == nil {
		r = net.DefaultResolver
	}
	return dns(interval, r)
}

// A lookup is what is used of a net.Resolver.
type lookup interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

func dns(interval time.Duration, r lookup) Resolver {
	if interval <= 0 {
		interval = dnsInterval
	}
	return func(ctx context.Context, name string, again <-chan struct{}) <-chan Set {
		sets := make(chan Set)
		name = strings.TrimPrefix(name, "/")
		go func() {
			defer close(sets)
			for {
				send(ctx, sets, resolve(ctx, r, name))
				if !pause(ctx, interval, again) {
					return
				}
			}
		}()
		return sets
	}
}

// pause waits for an interval, or until a connection has failed, but for dnsGap.
func pause(ctx context.Context, interval time.Duration, again <-chan struct{}) bool {
	if interval <= dnsGap {
		return sleep(ctx, interval)
	}
	if !sleep(ctx, dnsGap) {
		return false
	}
	t := time.NewTimer(interval - dnsGap)
	defer t.Stop()
	select {
	case <-t.C:
	case <-again:
	case <-ctx.Done():
		return false
	}
	return true
}

// resolve looks a name up.
func resolve(ctx context.Context, r lookup, name string) Set {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	if strings.HasPrefix(name, "_") {
		return resolveSRV(ctx, r, name)
	}
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return Set{Err: fmt.Errorf("dns %s: %w", name, err)}
	}
	addrs, err := r.LookupHost(ctx, host)
	if err != nil {
		return Set{Err: err}
	}
	var set Set
	for _, addr := range addrs {
		e := Endpoint{Addr: net.JoinHostPort(addr, port), Name: name}
		if e.Addr == name {
			e.Name = ""
		}
		set.Endpoints = append(set.Endpoints, e)
	}
	return found(set, name)
}

func resolveSRV(ctx context.Context, r lookup, name string) Set {
	_, records, err := r.LookupSRV(ctx, "", "", name)
	if err != nil && len(records) == 0 { // with records, some of them were bad
		return Set{Err: err}
	}
	set := Set{Err: err}
	least := uint16(1<<16 - 1)
	for _, s := range records {
		least = min(least, s.Priority)
	}
	for _, s := range records {
		if s.Priority == least && s.Target != "." {
			host := strings.TrimSuffix(s.Target, ".")
			set.Endpoints = append(set.Endpoints, Endpoint{Addr: net.JoinHostPort(host, strconv.Itoa(int(s.Port))), Weight: max(1, int(s.Weight))})
		}
	}
	return found(set, name)
}

// found adds an error to a set that is empty.
func found(set Set, name string) Set {
	if len(set.Endpoints) == 0 {
		set.Err = errors.Join(set.Err, fmt.Errorf("dns %s: %w", name, errEmpty))
	}
	return set
}
