// Package heap gives a program that carries bodies a floor under its heap: the garbage
// collector does not run before 16 MB have been allocated since it ran last.
//
// A camera frame has 0.3 MB and is garbage as soon as it is answered. Go's least heap is
// 4 MB, so a program that holds little beside its bodies collects every dozen frames, and a
// collection takes a processor from the requests that are under way. With the floor it
// collects a fifth as often, and all that passes through it, fast or slow, gains.
//
// The mechanism is a ballast: 16 MB without a pointer in them that nobody ever touches. The
// collector aims at twice of what lives, so what is allocated until it runs is as much as
// the ballast has, and more where more lives. The collector does not look into memory
// without pointers, and pages that nobody has touched take address space and no memory
// (but on Windows, which sets 16 MB aside in its page file). Go's own figures of the heap
// have the ballast in them.
//
// The other ways are worse. GOGC is a factor: what makes 20 MB of 4 makes 10 GB of 2.
// GOGC=off with a memory limit collects all the time once the limit is reached, and no
// limit is right for a robot and a server alike. A finalizer that sets GOGC anew after each
// collection needs a collection to learn that the heap has grown.
//
// A library does not decide this for the program that it is in: only main packages call
// it.
package heap
