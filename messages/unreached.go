package messages

// Unreached says that a client asked an agent something and nobody listened there: the
// server said so at once. It is how an agent that died while it served is noticed before
// it has missed its beats. It is evidence and not proof, and may be false: an agent that
// beats disproves it.
type Unreached struct {
	V     int         `msgpack:"v"`
	Agent string      `msgpack:"a"`
	Inc   Incarnation `msgpack:"i"` // that the sender's routes name
}

func (u *Unreached) version() *int { return &u.V }
func (u *Unreached) check() error  { return CheckName("agent", u.Agent) }
