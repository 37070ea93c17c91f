package main

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// wakeMain: from one goroutine to another that sleeps on a channel. With --locked each has a thread to
// itself, as a loop and a foreign thread have; without it the scheduler may run both on one.
func wakeMain(args []string) error {
	flags := flag.NewFlagSet("wake", flag.ExitOnError)
	count := flags.Int("count", 5000, "how many")
	pause := flags.Duration("pause", 200*time.Microsecond, "between two of them")
	locked := flags.Bool("locked", false, "a thread for each side")
	flags.Parse(args)

	sent := make(chan time.Time)
	go func() {
		if *locked {
			runtime.LockOSThread()
		}
		for i := 0; i < *count; i++ {
			time.Sleep(*pause)
			sent <- time.Now()
		}
		close(sent)
	}()
	if *locked {
		runtime.LockOSThread()
	}
	took := make([]time.Duration, 0, *count)
	for at := range sent {
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	at := func(quantile float64) float64 {
		return float64(took[min(len(took)-1, int(quantile*float64(len(took))))].Nanoseconds()) / 1e3
	}
	fmt.Printf("{\"count\":%d,\"p50\":%.2f,\"p99\":%.2f,\"p99.9\":%.2f}\n", len(took), at(0.5), at(0.99), at(0.999))
	return nil
}
