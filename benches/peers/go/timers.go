package main

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// timersMain: many time.AfterFunc timers at once, moved by Reset, canceled by Stop.
func timersMain(args []string) error {
	flags := flag.NewFlagSet("timers", flag.ExitOnError)
	count := flags.Int("count", 10_000_000, "how many timers are there at once")
	flags.Parse(args)

	waits := make([]time.Duration, *count)
	random := rand.New(rand.NewSource(1))
	for i := range waits {
		waits[i] = time.Duration(60_000+random.Intn(60_000)) * time.Millisecond
	}
	timers := make([]*time.Timer, *count)
	runtime.GC()
	before := resident()
	nothing := func() {}
	each := func(step func()) float64 {
		start := time.Now()
		step()
		return float64(time.Since(start).Nanoseconds()) / float64(*count)
	}
	insert := each(func() {
		for i, wait := range waits {
			timers[i] = time.AfterFunc(wait, nothing)
		}
	})
	bytes := float64(resident()-before) / float64(*count)
	move := each(func() {
		for i, wait := range waits {
			timers[i].Reset(wait + time.Minute)
		}
	})
	cancel := each(func() {
		for _, timer := range timers {
			if !timer.Stop() {
				panic("it has fired")
			}
		}
	})
	fmt.Printf("{\"count\":%d,\"bytes\":%.1f,\"insert\":%.2f,\"move\":%.2f,\"cancel\":%.2f}\n", *count, bytes, insert, move, cancel)
	return nil
}

// resident is the anonymous memory of this process, by the kernel's page tables.
func resident() int {
	rollup, _ := os.ReadFile("/proc/self/smaps_rollup")
	for _, line := range strings.Split(string(rollup), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Anonymous:" {
			kib, _ := strconv.Atoi(fields[1])
			return kib * 1024
		}
	}
	return 0
}
