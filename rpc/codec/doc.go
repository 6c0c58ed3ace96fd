// Package codec turns values into messages and back. A Codec does it for one type, an
// Encoding finds the codec for each type. Default, Fixed, JSON and Raw are here; protobuf is in
// package protocodec.
package codec
