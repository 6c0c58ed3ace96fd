// Package native is sluice's own wire: docs/wire.md in code.
//
// A connection starts with a magic and a Hello from each side. After that it
// carries frames: an 8-byte header and a payload. Where both sides asked for it,
// frames travel in records that carry a CRC32C of everything in them.
package native
