package kernel_test

import (
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/kernel"
)

// brpcCannot is what docs/interop.md says of brpc, as tests.
var brpcCannot = map[string]string{
	"TestHalvesEndInOrder":                "half-close: CLOSE ends both directions",
	"TestCloseOfOutComesAfterItsMessages": "half-close: CLOSE ends both directions",
	"TestCloseReceiveStopsThePeer":        "stop: a reader can't tell its peer to send no more",
	"TestHandlerReturnsAnError":           "codes on a close: neither CLOSE nor RST carries one",
	"TestCreditIsExact":                   "the receiver's credit: the window is the writer's own, and counts payload",
	"TestStuckReadersHarmNobody":          "the receiver's credit: the window is the writer's own",
	"TestStreamsStuckAfterTheyGrew":       "the receiver's credit: the window is the writer's own",
	"TestTooLargeFailsAtTheWriter":        "limits: a side does not say what it takes",
	"TestStreamsAreLimited":               "limits: a side does not say what it takes",
	"TestAnOfferGivenUp":                  "giving up an open: the server hears of it when it has answered",
	"TestOneOfAGroupIsWriteOnly":          "streams of one request share their settings",
	"TestServerOpenedStreams":             "server-opened streams: only clients send requests",
	"TestServersOpensRacingTheClientsEnd": "server-opened streams: only clients send requests",
	"TestCallsWithoutTheOneReply":         "a call has one reply: none is an empty one, a second is an error of the server's",
}

// brpcCode is what a code becomes as an error of brpc's.
func brpcCode(c kernel.Code) kernel.Code { return strm.CodeOf(strm.Errno(c)) }

// brpcUntouched: brpc's clients try again after these, and no others.
func brpcUntouched(c kernel.Code) bool {
	switch c {
	case kernel.CodeUnimplemented, kernel.CodeResourceExhausted, kernel.CodeGoingAway, kernel.CodeRefused:
		return true
	}
	return false
}
