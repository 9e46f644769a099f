package execio

import (
	"bufio"
	"os"
)

// listen passes lines on to the log.
func (c *child) listen(r *os.File) {
	const longest = 4096
	buf := bufio.NewReaderSize(r, longest)
	for {
		line, _, err := buf.ReadLine() // a longer line comes in pieces
		if err != nil {
			return
		}
		if len(line) == 0 {
			continue
		}
		c.mu.Lock()
		c.line = string(line[:min(len(line), 256)])
		if len(c.calls) == 1 { // else nobody knows which one it is about
			for _, call := range c.calls {
				if call.req.Log != nil {
					call.req.Log(string(line))
				}
			}
		}
		c.mu.Unlock()
		if c.o.Lines != nil {
			c.o.Lines(string(line))
		}
		c.o.Logger.Info("child", "handler", c.o.Name, "process", c.process.Pid, "line", string(line))
	}
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
