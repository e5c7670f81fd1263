"""The same functions on a cluster of Apache Spark: preparing, training, recommending."""
