package proc

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// Bounds of what is read of a child's output.
//
//   - longest is how much of a line is passed on at once; a longer one comes in pieces.
//   - barEvery is how often a line is passed on that is written over (a progress bar, which
//     ends in a carriage return): a download draws it ten times a second for minutes.
//   - mostSaid is how many bytes are passed on in a second: several tracebacks. What a process
//     says in a loop that went wrong must not fill the disk of a robot, nor its link.
const (
	longest  = 4096
	barEvery = time.Second
	mostSaid = 256 << 10
)

// Lines calls each with every line of r, without its end, until r ends. Empty ones are left
// out. Of one that is written over again and again each is given what it says now, once a
// second, and what it said last. Of who says more than mostSaid in a second the rest is left
// out, and counted; the last line is not.
func Lines(r io.Reader, each func(string)) {
	l := lines{each: each, now: time.Now}
	buf := make([]byte, longest)
	for {
		n, err := r.Read(buf)
		l.take(buf[:n])
		if err != nil {
			l.end()
			l.left()
			if l.lost != "" {
				each(l.lost)
			}
			return
		}
	}
}

type lines struct {
	each func(string)
	now  func() time.Time

	text []byte    // of the line that has no end yet
	bar  []byte    // that was written over and not passed on
	said time.Time // when one was passed on that was written over

	second time.Time // when the current one began
	used   int       // bytes passed on in it
	more   int       // lines left out in it
	lost   string    // the last of them
}

// pass passes a line on, where there is room for it.
func (l *lines) pass(line string) {
	if now := l.now(); now.Sub(l.second) >= time.Second {
		l.left()
		l.second, l.used, l.lost = now, 0, ""
	}
	if l.more > 0 || l.used+len(line) > mostSaid { // a shorter one would fit: what is left out is in one piece
		l.more, l.lost = l.more+1, line
		return
	}
	l.used += len(line)
	l.each(line)
}

// left says how many lines were left out.
func (l *lines) left() {
	if l.more > 0 {
		l.each(fmt.Sprintf("[fleetbus] %d lines are left out here: the process says more than %d kB a second", l.more, mostSaid>>10))
	}
	l.more = 0
}

func (l *lines) take(p []byte) {
	for len(p) > 0 {
		i := bytes.IndexAny(p, "\r\n")
		part := p
		if i >= 0 {
			part = p[:i]
		}
		if part = part[:min(len(part), longest-len(l.text))]; len(part) < len(p) && i == len(part) {
			l.text = append(l.text, part...)
			l.cut(p[i])
			p = p[i+1:]
			continue
		}
		if l.text = append(l.text, part...); len(l.text) == longest {
			l.end()
		}
		p = p[len(part):]
	}
}

// cut ends a line by what stands at its end.
func (l *lines) cut(by byte) {
	if by == '\n' {
		l.end()
		return
	}
	if len(l.text) == 0 {
		return
	}
	l.bar = append(l.bar[:0], l.text...)
	l.text = l.text[:0]
	if now := l.now(); now.Sub(l.said) >= barEvery {
		l.said = now
		l.pass(string(l.bar))
		l.bar = l.bar[:0]
	}
}

// end passes on what stands in the line.
func (l *lines) end() {
	if len(l.text) == 0 {
		l.text, l.bar = l.bar, l.text // nothing was written over it
	}
	if len(l.text) > 0 {
		l.pass(string(l.text))
	}
	l.text, l.bar = l.text[:0], l.bar[:0]
}
