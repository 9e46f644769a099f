// Package mail carries messages between environments, and whatever else has a name: at once
// where the receiver is there, and else when it is back.
//
//	peer := mail.New(nc, mail.Config{Fleet: "factory", Name: "robot-1", Handler: func(ctx context.Context, m *mail.Message) error {
//		return plan.Take(m.From, m.Body) // nil says that it was handled
//	}})
//	go peer.Run(ctx)
//	receipt, err := peer.Send(ctx, mail.Letter{To: "robot-2", Body: body, Expires: time.Minute})
//
// # What is promised
//
//   - [Peer.Send] returns when the receiver's handler has returned (delivered), or when the
//     message is stored on disk because the receiver is not there (waiting). [Peer.Wait] waits
//     for the end of what waits; it is known for a week, also to a sender that was restarted.
//   - Messages of one sender to one receiver are handled in the order in which Send was
//     called. What is sent while others wait goes behind them: nothing overtakes.
//   - A message is handled once, as long as its receiver lives; where that dies while it
//     handles one that waited, or its answer is lost with it, once more by the next life. The
//     handler knows it by its id.
//   - A message that expires is not begun after its time, which is counted from Send, on the
//     clock of one host at a time. Within a second of its end it may expire early.
//   - A box takes 1,000 messages of a sender and about 4,000 in all, of 256 KiB each; then
//     Send returns an error with code busy. Without an end mail waits for a week.
//   - Environments of one site need nothing but their site's server: the site of the
//     receiver stands in the subject.
//
// # What a handler must do
//
// It is called for one message after the other. An error with advice "retry here" (busy,
// unavailable, …) says not now: the message, and what its sender sends after it, waits and is
// tried again, after 0.2 s at first and then every 10 s. Any other error
// refuses the message, and the sender is told. It has [HandleTime]; what takes longer it
// hands over to something of its own.
//
// # One name, one receiver
//
// Of two processes that receive under one name the newer one wins, and the older one's Run
// returns an error with code conflict. Programs that only send may share a name, but then
// their messages are in order only for each of them.
//
// Package order decides, this one acts. docs/protocol.md has all of it for other languages.
package mail
