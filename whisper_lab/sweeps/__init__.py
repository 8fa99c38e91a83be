"""Many runs of the profiler: which ones, one after the other or on a cluster, collected, analyzed, shown."""
