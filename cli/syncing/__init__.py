"""`ragmesh sync`: a folder, a web address or a bucket, and a collection that follows it."""
