import "./style.css";
import { key } from "./key";
import { View } from "./view";

key.takeFromAddress();
void new View().start();
