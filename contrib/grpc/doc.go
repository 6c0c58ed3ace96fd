// Package sluicegrpc runs programs of grpc-go on sluice's kernel, over HTTP/2 and over sluice's own
// wire. A program changes the line that makes its server, and the one that makes its connection:
//
//	s := grpc.NewServer()               // before
//	s := sluicegrpc.NewServer(srv, nil) // srv is a *kernel.Server
//
//	conn, err := grpc.NewClient(target, ...)  // before
//	conn := sluicegrpc.NewConn(client, nil)   // client is a *kernel.Client
//
// Generated services and clients, interceptors, stats handlers, metadata, statuses with details
// and call options stay as they are; what was given to grpc.NewServer and grpc.NewClient as
// options is in ServerOptions and ConnOptions, or is the kernel's. The other side can be a program
// of this package, of package rpc or, over HTTP/2, any program of gRPC's.
//
// # What differs
//
// An error that grpc-go reports as INTERNAL for a wrong number of messages is UNIMPLEMENTED, as
// gRPC's specification of statuses has it. A program can't ask for what package grpc keeps to its own servers
// and connections: grpc.SetSendCompressor and grpc.PreparedMsg fail, and binary logs, channelz,
// service configs with their retries, name resolution and load balancing are not there.
// Compressors are gzip and zstd, which the kernel packs and unpacks: those that a program
// registers are not asked. Metadata that comes in has neither content-type nor, over HTTP/2,
// :authority.
//
// Over brpc unary RPCs and server streams work, and others whose server ends them; a client's
// stream that ends its half fails, for that wire can't say so. A handler there must set its header
// before it reads a stream. Over Seastar's wire, where methods are numbers, nothing works.
package sluicegrpc
