package dubbo

import (
	"context"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
)

// A Reference is a service that the program calls: "dubbo.consumer.references.ID".
type Reference struct {
	ID        string
	Interface string // the service's name in methods
	URL       string // a target for kernel.Dial, such as "tri://localhost:8888"
	// Version and Group, if not empty, are what calls name: see Caller.
	Version, Group string
}

// Caller returns a kernel.Caller that makes the calls of c for the reference's Version and
// Group: they are added to the metadata of each, unless the call names its own. Without both it
// returns c. Over a protocol that carries no metadata, such as Seastar's, its calls fail with
// kernel.ErrNotSupported. Each result is a Caller of its own: a sink of package rpc is passed by the
// one that it was made for.
func (r Reference) Caller(c kernel.Caller) kernel.Caller {
	var md metadata.MD
	if r.Version != "" {
		md = append(md, metadata.Field{Key: KeyVersion, Value: r.Version})
	}
	if r.Group != "" {
		md = append(md, metadata.Field{Key: KeyGroup, Value: r.Group})
	}
	if md == nil {
		return c
	}
	return &caller{c, md}
}

// A caller adds metadata to what its Caller opens and calls.
type caller struct {
	kernel.Caller
	md metadata.MD
}

func (c *caller) Open(ctx context.Context, method string, opts *kernel.OpenOptions) (*kernel.Stream, error) {
	return c.Caller.Open(ctx, method, c.openOptions(opts))
}

func (c *caller) OpenN(ctx context.Context, method string, opts *kernel.OpenOptions, each ...kernel.StreamOptions) ([]*kernel.Stream, error) {
	return c.Caller.OpenN(ctx, method, c.openOptions(opts), each...)
}

func (c *caller) Call(ctx context.Context, method string, req pool.Message, opts *kernel.CallOptions) (pool.Message, error) {
	var with kernel.CallOptions
	if opts != nil {
		with = *opts
	}
	with.Metadata = c.with(with.Metadata)
	return c.Caller.Call(ctx, method, req, &with)
}

func (c *caller) openOptions(opts *kernel.OpenOptions) *kernel.OpenOptions {
	var with kernel.OpenOptions
	if opts != nil {
		with = *opts
	}
	with.Metadata = c.with(with.Metadata)
	return &with
}

// with returns md with what it lacks, and leaves md as it is.
func (c *caller) with(md metadata.MD) metadata.MD {
	all := md[:len(md):len(md)]
	for _, f := range c.md {
		if _, own := md.Lookup(f.Key); !own {
			all = append(all, f)
		}
	}
	return all
}
