"""What 05 is made of: a process for each graph, one page before them, a guided tour, slim copies, a picture."""
