"""Between the services and the engines: admission, pool, replicas, workers, supervisor."""
