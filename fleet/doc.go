// Package fleet gives clients many servers instead of one address: a resolver says which there
// are, and a balancer chooses one for each call and stream.
package fleet
