"""The chassis: everything that each service needs and none of what it is about."""
