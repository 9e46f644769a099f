package messages

import "strings"

// Tier is where an environment stands: on the robot, at the edge of its site, or
// in a cloud.
type Tier string

// The tiers.
const (
	Robot Tier = "robot"
	Edge  Tier = "edge"
	Cloud Tier = "cloud"
)

// Tiers lists all tiers, the nearest to the robot first.
func Tiers() []Tier { return []Tier{Robot, Edge, Cloud} }

// Check returns an error that names field unless t is one of the tiers.
func (t Tier) Check(field string) error {
	switch t {
	case Robot, Edge, Cloud:
		return nil
	}
	return Errorf(CodeBadRequest, "%s: found %q, allowed are cloud, edge, robot", field, shorten(string(t)))
}

// ParseTier reads a tier, in any case.
func ParseTier(s string) (Tier, error) {
	t := Tier(strings.ToLower(s))
	return t, t.Check("tier")
}

// Class says what kind of request a task serves, and with it what is promised:
// see the package documentation of router for the table of promises.
type Class string

// The classes.
const (
	Training  Class = "training"
	Inference Class = "inference"
	Action    Class = "action"
)

// Check returns an error that names field unless c is one of the classes.
func (c Class) Check(field string) error {
	switch c {
	case Training, Inference, Action:
		return nil
	}
	return Errorf(CodeBadRequest, "%s: found %q, allowed are training, inference, action", field, shorten(string(c)))
}

// ParseClass reads a class, in any case.
func ParseClass(s string) (Class, error) {
	c := Class(strings.ToLower(s))
	return c, c.Check("class")
}

// Billing says how an environment's price is charged to a plan.
type Billing string

// Share charges the share of the compute that a task holds (a shared cloud).
// Whole charges the full price as soon as anything runs there (a box of one's own).
const (
	Share Billing = "share"
	Whole Billing = "whole"
)

// Check returns an error that names field unless b is one of the billings.
func (b Billing) Check(field string) error {
	switch b {
	case Share, Whole:
		return nil
	}
	return Errorf(CodeBadRequest, "%s: found %q, allowed are share, whole", field, shorten(string(b)))
}

// Delivery says by which path an inference request travels.
type Delivery string

// Durable goes through a JetStream work queue (the default); Direct is a core
// request to one agent.
const (
	Durable Delivery = "durable"
	Direct  Delivery = "direct"
)

// Check returns an error that names field unless d is one of the deliveries.
func (d Delivery) Check(field string) error {
	switch d {
	case Durable, Direct:
		return nil
	}
	return Errorf(CodeBadRequest, "%s: found %q, allowed are durable, direct", field, shorten(string(d)))
}
