// Package kernel gives Go programs streams as channels: ordered, message-framed,
// full-duplex, flow-controlled, many on one connection.
//
// A server handles streams by their method; a client opens them:
//
//	srv, _ := kernel.NewServer(nil)
//	srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
//		for m, err := range s.All(ctx) {
//			if err != nil {
//				return err
//			}
//			if err := s.Send(ctx, m); err != nil {
//				return err
//			}
//		}
//		return nil
//	})
//	go srv.ListenAndServe(ctx, "127.0.0.1:7000")
//
//	client, _ := kernel.Dial(ctx, "127.0.0.1:7000", nil)
//	s, _ := client.Open(ctx, "echo", nil)
//
// Nouns return channels (In, Out, Batches, Writable, Idle, Done), verbs act (Send, TrySend,
// Receive, CloseSend, Close, Abort). Every message has one owner. A stream has ended in
// order if In is closed and Err is nil, or if Receive returns io.EOF. A lost connection
// never looks like that.
//
// Package rpc, which stands on this one, carries values instead of messages.
package kernel
