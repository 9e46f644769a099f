package bus

import (
	"strconv"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Times of a pull. They depend on one another:
//
//   - While a pull waits, the server says so every PullHeartbeat. An executor that has
//     heard nothing for PullSilence lost its pull (a leader changed, a consumer was
//     deleted) and asks again: two late heartbeats are forgiven.
//   - PullExpires bounds how long the server keeps a pull of somebody who went away
//     without a word through a leaf node, where interest cannot be seen. It is long
//     because every expiry costs a message each way.
const (
	PullHeartbeat = time.Second
	PullSilence   = 5 * PullHeartbeat / 2
	PullExpires   = 30 * time.Second
)

// What an executor publishes to the reply subject of a message that it took out of a
// work queue: it is done; somebody else is to have it now (later: [NakDelay]); it still
// runs; nobody is ever to have it again.
var (
	Ack      = []byte("+ACK")
	Nak      = []byte("-NAK")
	Progress = []byte("+WPI")
	Term     = []byte("+TERM")
)

// NakDelay gives a message back, not to be delivered again before d is over.
func NakDelay(d time.Duration) []byte {
	return append([]byte(`-NAK {"delay":`), strconv.FormatInt(d.Nanoseconds(), 10)+"}"...)
}

// PullSubject is where pulls from the consumer of a task (of [ConsumerName]) are published. The client
// library's pulls are not used: they make a subscription and a goroutine per message,
// or hold messages that nobody has a free slot for.
func (b *Bus) PullSubject(site string, class messages.Class, task string) string {
	return b.consumerAPI("MSG.NEXT", site, class, task)
}

// ConsumerInfoSubject is where the state of the consumer of a task is asked for.
func (b *Bus) ConsumerInfoSubject(site string, class messages.Class, task string) string {
	return b.consumerAPI("INFO", site, class, task)
}

func (b *Bus) consumerAPI(verb, site string, class messages.Class, task string) string {
	return b.api() + ".CONSUMER." + verb + "." + StreamName(b.Fleet, site, class) + "." + task
}

// PullRequest asks for up to batch messages at a rank (0 to 9, the lowest is served
// first). dst is appended to and returned.
func PullRequest(dst []byte, batch, rank int) []byte {
	return PullRequestFor(dst, batch, rank, PullExpires)
}

// PullRequestFor is PullRequest for a pull that the server ends after another time than
// PullExpires; one that is too short for heartbeats has none.
func PullRequestFor(dst []byte, batch, rank int, expires time.Duration) []byte {
	dst = append(dst, `{"expires":`...)
	dst = strconv.AppendInt(dst, int64(expires), 10)
	dst = append(dst, `,"batch":`...)
	dst = strconv.AppendInt(dst, int64(batch), 10)
	if expires >= 2*PullHeartbeat {
		dst = append(dst, `,"idle_heartbeat":`...)
		dst = strconv.AppendInt(dst, int64(PullHeartbeat), 10)
	}
	dst = append(dst, `,"group":"`+Group+`","priority":`...)
	dst = strconv.AppendInt(dst, int64(rank), 10)
	return append(dst, '}')
}

// ProbeRequest is PullRequestFor for a pull that the server answers at once where there
// is nothing: with status 404, or 408 where others wait already.
func ProbeRequest(dst []byte, batch, rank int) []byte {
	dst = append(dst, `{"no_wait":true,"batch":`...)
	dst = strconv.AppendInt(dst, int64(batch), 10)
	dst = append(dst, `,"group":"`+Group+`","priority":`...)
	dst = strconv.AppendInt(dst, int64(rank), 10)
	return append(dst, '}')
}
