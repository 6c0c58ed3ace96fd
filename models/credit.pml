/* The credit rules of the native protocol, small enough to try every order of
   events. Two streams share one connection, one direction. Bytes are counted
   in units of one. README.md lists the rules (R1..R8) and the variants.

   Everything that is counted has three places: 0 and 1 are the streams, C is
   the connection. sent, limit, got and granted are totals since the start, so
   credit is limit - sent. A grant on its way is granted != taken: totals fold
   into each other, so the way back needs no queue. */

#ifndef W
#define W 2              /* stream window */
#endif
#ifndef CW
#define CW 4             /* connection window */
#endif
#ifndef T
#define T (W/2)          /* a stream returns credit when it owes this much */
#endif
#ifndef CT
#define CT (CW/2)        /* so does the connection, on a counter of its own */
#endif
#ifndef M
#define M 3              /* largest message */
#endif
#ifndef N
#define N 2              /* messages a stream */
#endif

/* SPLIT     cut a message to what fits      WHOLE  wait until all of it fits
   OVERDRAW  any credit admits a message     RACY   look at the credit, then take it
   BLIND     look at the stream's credit only */
#define SPLIT    0
#define WHOLE    1
#define OVERDRAW 2
#define RACY     3
#define BLIND    4
#ifndef SEND
#define SEND SPLIT
#endif

/* ARRIVAL  fragments of one message a stream return their credit on arrival
   TAKEN    credit returns when the application takes the message
   HALF     on arrival to the stream, when taken to the connection
   ALL      as ARRIVAL, but for any number of messages */
#define ARRIVAL 0
#define TAKEN   1
#define HALF    2
#define ALL     3
#ifndef ASSEMBLY
#define ASSEMBLY ARRIVAL
#endif

/* TOTAL  a grant is a total, a lower one is ignored
   LATEST a grant is a total, the latest counts    DELTA  a grant is added */
#define TOTAL  0
#define LATEST 1
#define DELTA  2
#ifndef GRANT
#define GRANT TOTAL
#endif

/* GONE  the connection's rest is flushed when the last stream has ended
   EOS   when the last end arrives              NEVER  not at all */
#define GONE  0
#define EOS   1
#define NEVER 2
#ifndef FLUSH
#define FLUSH GONE
#endif

/* CANCEL  the application stops reading at any moment
   ABORT   the sender gives up in the middle of a message
   REPLAY  one old grant is repeated
   AHEAD   the rest of the message that is lent for is granted with its first fragment
   A side that may give up ends the other's wait and so hides deadlocks: liveness is
   checked without CANCEL and ABORT.

   Each of the following breaks one rule:
   TIED           connection credit returns with the streams' counters
   LOSE_LATE      what arrives after the application gave up is not returned
   LOSE_MAILBOX   nor is what it had not taken
   LOSE_PARTIAL   nor is a half-assembled message
   TWICE_PARTIAL  which is returned again although it had been lent for
   IGNORE_STOP    a sender that waits for credit does not see the peer's STOP
   EARLY_CLOSE    the close is reported before the last message is taken
   CLOSE_TWICE    it is reported for our own end and for the peer's */

#define C 2

mtype = { MORE, LAST, FIN };
#ifdef AHEAD
chan wire = [3] of { mtype, byte, byte, byte };
#define PIECE    s, n, all                      /* and the length of the message */
#define NO_PIECE s, 0, 0
byte promised[2];                               /* granted for what is to come of a message */
#else
chan wire = [3] of { mtype, byte, byte };       /* one TCP connection */
#define PIECE    s, n
#define NO_PIECE s, 0
#endif
chan mail[2] = [N] of { byte, byte, bit };      /* whole messages: size, credit still
                                                   to return, was credit lent for it */

byte limit[3], sent[3], taken[3];               /* at the sender */
byte granted[3], got[3], owed[3];               /* at the receiver */
byte held[2];                                   /* receiver's memory, a stream */
byte partial[2];                                /* size of the message in assembly */
byte kept[2];                                   /* what of it has not been returned */
bit lent[2];                                    /* a message here has had its credit returned early */
bit stop[2], stopped[2];                        /* STOP sent, STOP seen */
bit dropping[2], ended[2], closed[2];
byte gone;

/* The sender's side. */

#define FITS(s, n) (limit[s] - sent[s] >= n && limit[C] - sent[C] >= n)
#define ANY(s)     (limit[s] > sent[s] && limit[C] > sent[C])

inline put(s) {
	sent[s] = sent[s] + n; sent[C] = sent[C] + n; left = left - n;
	if
	:: left == 0 -> wire!LAST(PIECE)
	:: else -> wire!MORE(PIECE)
	fi;
	n = 0
}

inline clip(s) {
	n = left;
	if :: n > limit[s] - sent[s] -> n = limit[s] - sent[s] :: else fi;
	if :: n > limit[C] - sent[C] -> n = limit[C] - sent[C] :: else fi
}

proctype sender(byte s) {
	byte i, left, n;
#ifdef AHEAD
	byte all;
#endif
	do
	:: atomic { i == N || stopped[s] -> break }
	:: atomic { else ->
		i++;
		if
		:: left = 1
#if M > 2
		:: left = 2
#endif
		:: left = M
		fi;
#ifdef AHEAD
		all = left
#endif
		}
		do
		:: atomic { left == 0 -> break }
#ifndef IGNORE_STOP
		:: atomic { stopped[s] -> goto fin }
#endif
#ifdef ABORT
		:: atomic { left > 0 -> goto fin }      /* the sender gives up in mid-message */
#endif
#if SEND == SPLIT
		:: atomic { left > 0 && ANY(s) && nfull(wire) -> clip(s); put(s) }
#elif SEND == WHOLE
		:: atomic { left > 0 && FITS(s, left) && nfull(wire) -> n = left; put(s) }
#elif SEND == OVERDRAW
		:: atomic { left > 0 && ANY(s) && nfull(wire) -> n = left; put(s) }
#elif SEND == RACY
		:: atomic { left > 0 && ANY(s) -> clip(s) };
		   atomic { nfull(wire) -> put(s) }
#elif SEND == BLIND
		:: atomic { left > 0 && limit[s] > sent[s] && nfull(wire) ->
			n = left;
			if :: n > limit[s] - sent[s] -> n = limit[s] - sent[s] :: else fi;
			put(s) }
#endif
		od
	od;
fin:
	wire!FIN(NO_PIECE)
}

#define WINDOW(c) (c == C -> CW : W)

inline apply(c, n) {
#if GRANT == TOTAL
	if :: n > limit[c] -> limit[c] = n :: else fi;
#elif GRANT == LATEST
	limit[c] = n;
#else
	limit[c] = limit[c] + n;
#endif
#ifdef AHEAD
	assert(limit[c] - sent[c] <= (c == C -> CW : W + M))
#else
	assert(limit[c] - sent[c] <= WINDOW(c))
#endif
}

inline deliver(c) {
	n = granted[c];
#if GRANT == DELTA
	n = granted[c] - taken[c];
#endif
	taken[c] = granted[c];
#ifdef REPLAY
	if
	:: !kept_old -> kept_old = 1; old = n; place = c      /* one to repeat later */
	:: true
	fi;
#endif
	apply(c, n);
	n = 0
}

/* The sender's reader: grants and stops from the peer. */
active proctype feedback() {
	byte n, old, place;
	bit kept_old;
end:	do
	:: atomic { granted[0] != taken[0] -> deliver(0) }
	:: atomic { granted[1] != taken[1] -> deliver(1) }
	:: atomic { granted[C] != taken[C] -> deliver(C) }
	:: atomic { stop[0] && !stopped[0] -> stopped[0] = 1 }
	:: atomic { stop[1] && !stopped[1] -> stopped[1] = 1 }
	:: atomic { old > 0 -> apply(place, old); old = 0 }
	od
}

/* The receiver's side. */

inline returnTo(c, n, threshold) {
	owed[c] = owed[c] + n;
	if
	:: owed[c] >= threshold -> granted[c] = granted[c] + owed[c]; owed[c] = 0
	:: else
	fi
}

/* The credit of n units of stream s returns. */
inline giveBack(s, n) {
#ifdef TIED
	owed[s] = owed[s] + n;
	if
	:: owed[s] >= T ->
		granted[s] = granted[s] + owed[s]; granted[C] = granted[C] + owed[s];
		owed[s] = 0
	:: else
	fi
#else
	returnTo(s, n, T);
	returnTo(C, n, CT)
#endif
}

inline flush() {
	granted[C] = granted[C] + owed[C]; owed[C] = 0
}

inline leave(s) {
#ifdef TIED
	granted[C] = granted[C] + owed[s];
#endif
	gone++;
#if FLUSH == GONE
	if :: gone == 2 -> flush() :: else fi
#endif
}

inline tell(s) {
	assert(!closed[s]);                     /* exactly one close */
	closed[s] = 1
}

inline dropPartial(s) {
	held[s] = held[s] - partial[s];
#ifdef TWICE_PARTIAL
	returnTo(C, partial[s], CT);
#elif !defined(LOSE_PARTIAL)
	returnTo(C, kept[s], CT);
#endif
	partial[s] = 0; kept[s] = 0
#ifdef AHEAD
	; promised[s] = 0
#endif
}

/* n units came for a stream whose application has given up. */
inline dropLate() {
#ifndef LOSE_LATE
	returnTo(C, n, CT)
#else
	skip
#endif
}

#ifdef AHEAD
inline promise(s, rest) {
	promised[s] = rest; granted[s] = granted[s] + rest
}

/* A fragment that is lent for: what was promised for it is granted already. */
inline lend(s, n) {
	if
	:: promised[s] > 0 -> promised[s] = promised[s] - n; returnTo(C, n, CT)
	:: else -> giveBack(s, n); promise(s, all - partial[s] - n)
	fi
}
#else
#define lend(s, n) giveBack(s, n)
#endif

/* A fragment of a message that did not come in one piece. */
inline assemble(s, n) {
#if ASSEMBLY == ARRIVAL
	if
	:: !lent[s] || (partial[s] > 0 && kept[s] == 0) -> lent[s] = 1; lend(s, n)
	:: else -> kept[s] = kept[s] + n        /* another message is lent for */
	fi;
#elif ASSEMBLY == ALL
	giveBack(s, n);
#elif ASSEMBLY == HALF
	returnTo(s, n, T); kept[s] = kept[s] + n;
#else
	kept[s] = kept[s] + n;
#endif
	partial[s] = partial[s] + n
}

inline arrive(s, n) {
	got[s] = got[s] + n; got[C] = got[C] + n;
	assert(got[s] <= granted[s]);           /* the receiver's check: FLOW_CONTROL */
	assert(got[C] <= granted[C]);
	if :: !dropping[s] -> held[s] = held[s] + n :: else fi;
	assert(held[s] <= W + M)
}

/* The receiver's loop. It waits for nothing but the wire. */
active proctype reader() {
	byte s, n;
#ifdef AHEAD
	byte all;
#endif
end:	do
	:: atomic { wire?MORE(PIECE) ->
		arrive(s, n);
		if
		:: dropping[s] -> dropLate()
		:: else -> assemble(s, n)
		fi;
		s = 0; n = 0 }
	:: atomic { wire?LAST(PIECE) ->
		arrive(s, n);
		if
		:: dropping[s] -> dropLate()
		:: !dropping[s] && partial[s] == 0 -> mail[s]!n, n, 0
		:: else -> assemble(s, n);
			mail[s]!partial[s], kept[s], (kept[s] == 0 || ASSEMBLY == HALF);
			partial[s] = 0; kept[s] = 0
		fi;
		s = 0; n = 0 }
	:: atomic { wire?FIN(PIECE) ->
		if :: partial[s] > 0 -> dropping[s] = 1 :: else fi;
		dropPartial(s);
		ended[s] = 1;
#if FLUSH == EOS
		if :: ended[0] && ended[1] -> flush() :: else fi;
#endif
#ifdef CLOSE_TWICE
		if :: dropping[s] -> tell(s) :: else fi;
#endif
		if :: closed[s] -> leave(s) :: else fi;
		s = 0 }
	od
}

inline take(s) {
	mail[s]?size, n, early;
	assert(!closed[s]);                     /* and no data after it */
	held[s] = held[s] - size;
#if ASSEMBLY == HALF
	if :: !early -> returnTo(s, n, T) :: else fi;
	returnTo(C, n, CT);
#else
	giveBack(s, n);
	if
	:: early ->                             /* now the next message may borrow */
		lent[s] = (partial[s] > 0);
		n = kept[s]; kept[s] = 0;
		giveBack(s, n)
	:: else
	fi;
#endif
	size = 0; n = 0; early = 0
}

inline giveUp(s) {
	dropping[s] = 1; stop[s] = 1;
	do
	:: nempty(mail[s]) ->
		mail[s]?size, n, early;
		held[s] = held[s] - size;
#ifndef LOSE_MAILBOX
		returnTo(C, n, CT);
#endif
		size = 0; n = 0; early = 0
	:: empty(mail[s]) -> break
	od;
	dropPartial(s);
	lent[s] = 0
}

proctype application(byte s) {
	byte size, n;
	bit early;
	do
	:: atomic { nempty(mail[s]) -> take(s) }
#ifdef EARLY_CLOSE
	:: atomic { ended[s] && !closed[s] -> tell(s); leave(s) }
#else
	:: atomic { ended[s] && !closed[s] && empty(mail[s]) -> tell(s); leave(s) }
#endif
#ifdef CANCEL
	:: atomic { !closed[s] -> giveUp(s); tell(s); if :: ended[s] -> leave(s) :: else fi }
#endif
	:: atomic { closed[s] && empty(mail[s]) -> break }
	od
}

init {
	atomic {
		limit[0] = W; limit[1] = W; limit[C] = CW;
		granted[0] = W; granted[1] = W; granted[C] = CW;
		taken[0] = W; taken[1] = W; taken[C] = CW;
		run sender(0); run application(0);
		run sender(1); run application(1)
	}
	/* At rest. If a party still waits for credit, this never comes, and the
	   checker reports an invalid end state: a deadlock. */
	atomic { gone == 2 && timeout ->
		assert(sent[C] == got[C] && sent[0] == got[0] && sent[1] == got[1]);
		assert(limit[C] - sent[C] == CW);
		assert(held[0] == 0 && held[1] == 0);
		assert(closed[0] && closed[1]);
		assert(dropping[0] || granted[0] + owed[0] == W + got[0]);
		assert(dropping[1] || granted[1] + owed[1] == W + got[1]) }
}
