// Package strm is brpc's wire: baidu_std calls (PRPC) and streams (STRM), for
// sluice's handlers and clients.
package strm
