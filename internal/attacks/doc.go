// Package attacks holds tests of a server under attack, in processes of their own: how much
// memory the server takes under GOMEMLIMIT, how an honest client beside it fares, and whether
// new ones get in. With SLUICE_ATTACKS=all every attack runs under every limit, which takes
// half an hour; otherwise a few do.
package attacks
