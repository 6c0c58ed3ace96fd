// Package docs holds the tests that keep pages of docs/ true: the texts and numbers that they
// quote, and the code that they show.
package docs
