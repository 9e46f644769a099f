package execio

import (
	"os"

	"github.com/fleetbus/fleetbus/agent/backend/proc"
)

// listen passes lines on to the log.
func (c *child) listen(r *os.File) {
	proc.Lines(r, func(line string) {
		c.mu.Lock()
		c.line = line[:min(len(line), 256)]
		if len(c.calls) == 1 { // else nobody knows which one it is about
			for _, call := range c.calls {
				if call.req.Log != nil {
					call.req.Log(line)
				}
			}
		}
		c.mu.Unlock()
		if c.o.Lines != nil {
			c.o.Lines(line)
		}
		c.o.Logger.Info("child", "handler", c.o.Name, "process", c.process.Pid, "line", line)
	})
}

// lastWords is the last line on standard error, for an error message.
func (c *child) lastWords() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line == "" {
		return ""
	}
	return "; its last line on standard error: " + c.line
}
