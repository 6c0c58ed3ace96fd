package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/cmd/echo/internal/flags"
	"github.com/sluicerpc/sluice/cmd/echo/internal/lines"
	"github.com/sluicerpc/sluice/cmd/echo/internal/wire"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// call runs a client: it dials, opens streams, uses them, and closes.
func call(f *flags.Call, std cli.Std) error {
	protocols, err := wire.First(f.Protocol)
	if err != nil {
		return err
	}
	tlsConfig, token, err := f.Credentials()
	if err != nil {
		return err
	}
	ctx, cancel := f.Context()
	defer cancel()

	// Dial connects now, so that an error shows at once. The client connects again
	// whenever it has to.
	client, err := kernel.Dial(ctx, f.Addr, &kernel.ClientOptions{
		TLS:       tlsConfig,
		Token:     token,
		Protocols: protocols, // the first is the one that an address without a name means
		// What comes back is as large as what we send, and the default limit is
		// 4 MiB. The server has a limit of its own.
		Limits: kernel.Limits{MaxMessage: max(int(f.Size), 4<<20)},
	})
	if err != nil {
		return f.On(err)
	}
	defer client.Close()
	f.Method = cmp.Or(f.Method, wire.Method(client, methodEcho))
	if f.Lines() {
		return f.On(sendLines(ctx, client, f, std))
	}
	parts, source, err := f.Parts()
	if err != nil {
		return err
	}
	defer source.Close()
	var t transfer
	if err := t.run(ctx, client, f.Method, parts); err != nil {
		return f.On(err)
	}
	return t.Line(std.Err, f.Streams)
}

// sendLines sends each line of standard input, and prints each reply, in one loop: a stream's
// channels stand in a select beside the program's own. It holds at most one line. While
// there is no credit to send that, it reads no further one, and prints replies.
func sendLines(ctx context.Context, client *kernel.Client, f *flags.Call, std cli.Std) error {
	s, err := wire.Open(ctx, client, f.Method) // ctx bounds the stream, not the opening alone
	if err != nil {
		return err
	}
	input := lines.Read(std.In)
	var line pool.Message
	typed, slots, in := input.C(), (<-chan actor.Slot)(nil), s.In()
	if f.OneWay {
		in = nil
	}
	sent, replies, atEnd := 0, 0, false
	for !atEnd || in != nil {
		select {
		case text, ok := <-typed:
			if ok {
				line, typed, slots = pool.MessageOf(text), nil, s.Writable() // the bytes are the message now
				continue
			}
			if err := input.Err(); err != nil {
				return fmt.Errorf("standard input: %w", err)
			}
			typed, atEnd = nil, true
			if err := wire.CloseSend(s); err != nil { // what was sent still arrives, before the end
				return why(s, err)
			}
		case slot, ok := <-slots:
			if !ok {
				return why(s, kernel.ErrSendClosed)
			}
			if err := slot.Send(line); err != nil {
				return why(s, err)
			}
			sent, typed, slots = sent+1, input.C(), nil
		case m, ok := <-in:
			if !ok {
				return s.Err()
			}
			replies++
			_, err := fmt.Fprintf(std.Out, "%s\n", m.Bytes())
			m.Release()
			if err != nil {
				return err
			}
		}
		if atEnd && replies == sent && wire.WholeEnds(s) {
			break
		}
	}
	return s.Close(ctx)
}
