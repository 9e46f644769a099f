package embed

import (
	"fmt"
	"log/slog"
	"sync"
)

// serverLog passes the server's log on to slog, and keeps the first fatal message:
// the server reports in no other way why it did not start. Unlike the logger of the
// server's own binary it does not end the process.
type serverLog struct {
	log *slog.Logger

	mu    sync.Mutex
	first string
}

// Noticef is what the server does when all is well: 20 lines at each start, so it is
// debug for us.
func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l *serverLog) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }

// Fatalf logs nothing: the message becomes the error of Start.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == "" {
		l.first = fmt.Sprintf(format, v...)
	}
}

func (l *serverLog) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}
